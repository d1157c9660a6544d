//! A checkpoint to the folder that the server loads.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::config::{ModelConfig, read_json, write_json};
use crate::engine::tensors::{Outline, TensorWriter};
use crate::engine::weights::{ENGINE_FILE, Weights};
use crate::engine::{EngineError, Precision, folder};

/// Raised when an older program could not read a newer engine, or read it wrongly.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const ENGINE_JSON: &str = "engine.json";

/// What an engine is built for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BuildOptions {
    /// Sequences computed at a time.
    pub max_batch_size: usize,
    /// Tokens of prompt and answer together.
    pub max_seq_len: usize,
}

/// The content of `engine.json`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct EngineJson {
    pub(crate) format: u32,
    pub(crate) precision: Precision,
    pub(crate) options: BuildOptions,
    pub(crate) model: ModelConfig,
}

impl EngineJson {
    pub(crate) fn read(path: &Path) -> Result<Self, EngineError> {
        let json: serde_json::Value = read_json(path)?;
        let found = json["format"].as_u64().and_then(|format| u32::try_from(format).ok()).unwrap_or(0);
        if found != FORMAT {
            return Err(EngineError::Format { path: path.to_owned(), found, known: FORMAT });
        }
        ModelConfig::from_json(&json["model"])?;
        serde_json::from_value(json).map_err(|source| EngineError::Json { path: path.to_owned(), source })
    }
}

/// Writes `out`, a folder with one weights file in the layout of the forward pass, `engine.json` and the tokenizer.
///
/// The weights keep the checkpoint's precision. Memory holds one fused tensor at a time.
///
/// # Errors
/// When a limit is 0 or over the model's, when the checkpoint lacks a tensor or has one of another shape, when a
/// file cannot be read or written.
pub fn build(checkpoint: &Path, out: &Path, options: BuildOptions) -> Result<(), EngineError> {
    let model = ModelConfig::read(checkpoint)?;
    check_limits(&model, options)?;
    let weights = Weights::of_checkpoint(checkpoint, &model)?;
    let precision = weights.precision()?;
    folder::create(out)?;
    let outlines = weights.names().map(|name| weights.outline(name)).collect::<Result<Vec<Outline>, _>>()?;
    let mut writer = TensorWriter::create(&out.join(ENGINE_FILE), &outlines)?;
    for name in weights.names() {
        writer.write(&weights.read(name)?.bytes)?;
    }
    writer.finish()?;
    folder::copy_companions(checkpoint, out)?;
    write_json(&out.join(ENGINE_JSON), &EngineJson { format: FORMAT, precision, options, model })
}

pub(crate) fn check_limits(model: &ModelConfig, options: BuildOptions) -> Result<(), EngineError> {
    for (name, limit) in [("max_batch_size", options.max_batch_size), ("max_seq_len", options.max_seq_len)] {
        if limit == 0 {
            return Err(EngineError::Zero { name });
        }
    }
    if options.max_seq_len > model.max_position_embeddings {
        let (asked, limit) = (options.max_seq_len, model.max_position_embeddings);
        return Err(EngineError::SequenceTooLong { asked, limit });
    }
    Ok(())
}
