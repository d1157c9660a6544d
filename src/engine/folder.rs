//! Files that travel with a model: tokenizer, chat template, generation settings.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::engine::EngineError;
use crate::engine::config::{read_json, token_ids};

const COMPANIONS: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
];

/// Copies the files beside the weights, those that exist.
pub(crate) fn copy_companions(from: &Path, to: &Path) -> Result<(), EngineError> {
    COMPANIONS.into_iter().filter(|name| from.join(name).exists()).try_for_each(|name| copy(name, from, to))
}

pub(crate) fn copy(name: &str, from: &Path, to: &Path) -> Result<(), EngineError> {
    let target = to.join(name);
    fs::copy(from.join(name), &target).map_err(EngineError::file("copy to", &target))?;
    Ok(())
}

pub(crate) fn create(folder: &Path) -> Result<(), EngineError> {
    fs::create_dir_all(folder).map_err(EngineError::file("create folder", folder))
}

/// The token ids that end an answer: those of `generation_config.json` where it has some, else those of the model.
pub(crate) fn eos_token_ids(folder: &Path, of_model: Vec<u32>) -> Result<Vec<u32>, EngineError> {
    let path = folder.join("generation_config.json");
    if !path.exists() {
        return Ok(of_model);
    }
    let json: Value = read_json(&path)?;
    let ids = token_ids(&json["eos_token_id"]);
    Ok(if ids.is_empty() { of_model } else { ids })
}
