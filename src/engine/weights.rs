//! The tensors that the forward pass loads, and how they are put together from a Hugging Face checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::Dtype;

use crate::engine::config::ModelConfig;
use crate::engine::tensors::{Outline, Shards, Stored};
use crate::engine::{EngineError, Precision, layout};

/// Suffix of the scales that belong to an int8 tensor.
pub(crate) const SCALE: &str = "_scale";
/// The file with the weights of a built engine.
pub(crate) const ENGINE_FILE: &str = "engine.safetensors";

/// The tensors of the forward pass by name, with the tensors in files that each is stacked from.
#[derive(Debug)]
pub(crate) struct Weights {
    shards: Shards,
    parts: BTreeMap<String, Vec<String>>,
}

impl Weights {
    /// Weights of a Hugging Face folder.
    pub(crate) fn of_checkpoint(folder: &Path, config: &ModelConfig) -> Result<Self, EngineError> {
        let shards = Shards::of_checkpoint(folder)?;
        let mut parts = BTreeMap::new();
        for part in layout::parts(config) {
            let sources: Vec<String> = part.sources.into_iter().map(|(source, _)| source).collect();
            let scales: Vec<String> = sources.iter().map(|source| format!("{source}{SCALE}")).collect();
            if scales.iter().all(|scale| shards.contains(scale)) {
                parts.insert(format!("{}{SCALE}", part.name), scales);
            }
            parts.insert(part.name, sources);
        }
        let weights = Self { shards, parts };
        weights.check(config)?;
        Ok(weights)
    }

    /// Weights of a built engine.
    pub(crate) fn of_engine(folder: &Path, config: &ModelConfig) -> Result<Self, EngineError> {
        let shards = Shards::open(folder, [ENGINE_FILE.to_owned()])?;
        let parts = shards.outlines().map(|outline| (outline.name.clone(), vec![outline.name.clone()])).collect();
        let weights = Self { shards, parts };
        weights.check(config)?;
        Ok(weights)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().map(String::as_str)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.parts.contains_key(name)
    }

    /// What [`Weights::read`] will give, from the headers alone.
    pub(crate) fn outline(&self, name: &str) -> Result<Outline, EngineError> {
        let mut whole: Option<Outline> = None;
        for source in self.sources(name)? {
            let part = self.shards.outline(source)?;
            let Some(whole) = &mut whole else {
                whole = Some(Outline { name: name.to_owned(), ..part.clone() });
                continue;
            };
            let stackable = whole.dtype == part.dtype
                && whole.shape.len() == part.shape.len()
                && whole.shape.get(1..) == part.shape.get(1..);
            let (Some(rows), Some(more), true) = (whole.shape.first_mut(), part.shape.first(), stackable) else {
                let complaint = format!("{:?} {:?} does not stack on the tensors before it", part.dtype, part.shape);
                return Err(EngineError::Tensor { name: source.clone(), complaint });
            };
            *rows += more;
        }
        whole.ok_or_else(|| missing(name))
    }

    pub(crate) fn read(&self, name: &str) -> Result<Stored, EngineError> {
        let outline = self.outline(name)?;
        let mut bytes = Vec::new();
        for source in self.sources(name)? {
            bytes.append(&mut self.shards.read(source)?.bytes);
        }
        Ok(Stored { outline, bytes })
    }

    /// The precision that the linear layers are stored in. A checkpoint in bf16 is computed as fp32, which holds it.
    pub(crate) fn precision(&self) -> Result<Precision, EngineError> {
        let outline = self.outline("embedding.weight")?;
        match outline.dtype {
            Dtype::F32 | Dtype::BF16 => Ok(Precision::Fp32),
            Dtype::F16 => Ok(Precision::Fp16),
            Dtype::I8 => Ok(Precision::Int8Wo),
            other => {
                Err(EngineError::Tensor { name: outline.name, complaint: format!("type {other:?} is not supported") })
            }
        }
    }

    fn sources(&self, name: &str) -> Result<&[String], EngineError> {
        self.parts.get(name).map(Vec::as_slice).ok_or_else(|| missing(name))
    }

    /// Shapes are checked once, so that the forward pass cannot meet a wrong one.
    fn check(&self, config: &ModelConfig) -> Result<(), EngineError> {
        for part in layout::parts(config) {
            let (found, asked) = (self.outline(&part.name)?.shape, part.shape());
            if found != asked {
                let complaint = format!("shape {found:?} where config.json asks for {asked:?}");
                return Err(EngineError::Tensor { name: part.name, complaint });
            }
        }
        Ok(())
    }
}

fn missing(name: &str) -> EngineError {
    EngineError::Tensor { name: name.to_owned(), complaint: "missing".to_owned() }
}
