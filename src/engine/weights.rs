//! The tensors that the forward pass loads, and how they are put together from a Hugging Face checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::Dtype;

use crate::engine::config::ModelConfig;
use crate::engine::tensors::{Outline, Shards, Stored};
use crate::engine::{EngineError, Precision};

/// Suffix of the scales that belong to an int8 tensor.
pub(crate) const SCALE: &str = "_scale";
/// The file with the weights of a built engine.
pub(crate) const ENGINE_FILE: &str = "engine.safetensors";

/// Each tensor of the engine by name, with the checkpoint's tensors that it stacks along the first dimension.
///
/// Query, key and value are one matrix, and so are gate and up: fewer, larger products.
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
        for (name, sources) in fused_parts(config) {
            let scales: Vec<String> = sources.iter().map(|source| format!("{source}{SCALE}")).collect();
            if scales.iter().all(|scale| shards.contains(scale)) {
                parts.insert(format!("{name}{SCALE}"), scales);
            }
            parts.insert(name, sources);
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
            other => Err(EngineError::Tensor { name: outline.name, complaint: format!("type {other:?} is not supported") }),
        }
    }

    fn sources(&self, name: &str) -> Result<&[String], EngineError> {
        self.parts.get(name).map(Vec::as_slice).ok_or_else(|| missing(name))
    }

    /// Shapes are checked once, so that the forward pass cannot meet a wrong one.
    fn check(&self, config: &ModelConfig) -> Result<(), EngineError> {
        for (name, shape) in expected_shapes(config) {
            let found = self.outline(&name)?.shape;
            if found != shape {
                let complaint = format!("shape {found:?} where config.json asks for {shape:?}");
                return Err(EngineError::Tensor { name, complaint });
            }
        }
        Ok(())
    }
}

fn missing(name: &str) -> EngineError {
    EngineError::Tensor { name: name.to_owned(), complaint: "missing".to_owned() }
}

fn fused_parts(config: &ModelConfig) -> Vec<(String, Vec<String>)> {
    let one = |name: &str, source: &str| (name.to_owned(), vec![source.to_owned()]);
    let mut parts = vec![one("embedding.weight", "model.embed_tokens.weight"), one("norm.weight", "model.norm.weight")];
    if !config.tie_word_embeddings {
        parts.push(one("head.weight", "lm_head.weight"));
    }
    for layer in 0..config.num_hidden_layers {
        let mut part = |name: &str, sources: &[&str]| {
            let sources = sources.iter().map(|source| format!("model.layers.{layer}.{source}")).collect();
            parts.push((format!("layers.{layer}.{name}"), sources));
        };
        part("input_norm.weight", &["input_layernorm.weight"]);
        part("qkv.weight", &["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"]);
        if config.has_qkv_bias() {
            part("qkv.bias", &["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"]);
        }
        part("out.weight", &["self_attn.o_proj.weight"]);
        part("post_norm.weight", &["post_attention_layernorm.weight"]);
        part("gate_up.weight", &["mlp.gate_proj.weight", "mlp.up_proj.weight"]);
        part("down.weight", &["mlp.down_proj.weight"]);
    }
    parts
}

fn expected_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner, vocabulary) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let qkv = config.query_size() + 2 * config.key_value_size();
    let mut shapes =
        vec![("embedding.weight".to_owned(), vec![vocabulary, hidden]), ("norm.weight".to_owned(), vec![hidden])];
    if !config.tie_word_embeddings {
        shapes.push(("head.weight".to_owned(), vec![vocabulary, hidden]));
    }
    for layer in 0..config.num_hidden_layers {
        let mut expect = |name: &str, shape: &[usize]| shapes.push((format!("layers.{layer}.{name}"), shape.to_vec()));
        expect("input_norm.weight", &[hidden]);
        expect("qkv.weight", &[qkv, hidden]);
        if config.has_qkv_bias() {
            expect("qkv.bias", &[qkv]);
        }
        expect("out.weight", &[hidden, config.query_size()]);
        expect("post_norm.weight", &[hidden]);
        expect("gate_up.weight", &[2 * inner, hidden]);
        expect("down.weight", &[hidden, inner]);
    }
    shapes
}
