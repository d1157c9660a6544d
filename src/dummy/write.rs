//! A Hugging Face folder with random weights.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::dummy::tokenizer::{END_OF_TEXT, END_OF_TURN, TOKENIZER_JSON, VOCABULARY};
use crate::dummy::weights::{BLOCK, Numbers};
use crate::engine::{EngineError, ModelConfig, Outline, TensorWriter, checkpoint_outlines};

/// More than this is no dummy but a mistake: 40 GB of weights.
const MAX_WEIGHTS: usize = 10_000_000_000;
/// Blocks of random numbers in memory at a time: 16 MiB.
const BLOCKS_AT_A_TIME: usize = 64;
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Why a dummy model could not be made.
#[derive(Debug, Error)]
pub enum DummyError {
    #[error("the dummy model's configuration")]
    Config { source: EngineError },
    #[error("vocab_size {vocab_size} is smaller than the {VOCABULARY} tokens of the dummy tokenizer")]
    SmallVocabulary { vocab_size: usize },
    #[error("{weights} weights are more than {MAX_WEIGHTS}")]
    TooLarge { weights: usize },
    #[error("cannot write `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write the weights")]
    Weights { source: EngineError },
}

/// The built-in shape: a Qwen2 of 4 million weights, small enough for hundreds of tokens a second on two cores.
#[must_use]
pub fn default_config() -> Map<String, Value> {
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "bos_token_id": END_OF_TEXT.1,
        "eos_token_id": END_OF_TEXT.1,
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}

/// Writes a Hugging Face folder: configuration, 32-bit weights drawn from `seed`, tokenizer.
///
/// `config` is the content of a `config.json` of model type `qwen2` or `llama`; [`default_config`] when `None`.
/// Matrices and biases are nearly normal with standard deviation `initializer_range`, norms are 1. Memory holds
/// 16 MiB of them at a time.
///
/// # Errors
/// When the configuration is none that the embedded engine can compute, when its vocabulary is smaller than the
/// tokenizer's, when it has over 10 billion weights, when the folder cannot be written.
pub fn write_model(folder: &Path, config: Option<&Map<String, Value>>, seed: u64) -> Result<(), DummyError> {
    let config = Value::Object(config.cloned().unwrap_or_else(default_config));
    let model = ModelConfig::from_json(&config).map_err(|source| DummyError::Config { source })?;
    if model.vocab_size < VOCABULARY {
        return Err(DummyError::SmallVocabulary { vocab_size: model.vocab_size });
    }
    let tensors = checkpoint_outlines(&model);
    let weights = tensors.iter().fold(0, |sum: usize, tensor| sum.saturating_add(tensor.elements()));
    if weights > MAX_WEIGHTS {
        return Err(DummyError::TooLarge { weights });
    }
    fs::create_dir_all(folder).map_err(|source| DummyError::File { path: folder.to_owned(), source })?;
    write_weights(&folder.join("model.safetensors"), &tensors, model.initializer_range, seed)
        .map_err(|source| DummyError::Weights { source })?;
    write_texts(folder, &config)
}

fn write_weights(path: &Path, tensors: &[Outline], deviation: f64, seed: u64) -> Result<(), EngineError> {
    let mut writer = TensorWriter::create(path, tensors)?;
    for tensor in tensors {
        if tensor.name.ends_with("norm.weight") {
            writer.write(&1.0_f32.to_le_bytes().repeat(tensor.elements()))?;
            continue;
        }
        let numbers = Numbers::new(seed, &tensor.name, deviation);
        let blocks = tensor.elements().div_ceil(BLOCK);
        let mut bytes_left = tensor.elements() * 4;
        for first in (0..blocks).step_by(BLOCKS_AT_A_TIME) {
            let bytes = numbers.blocks(first..blocks.min(first + BLOCKS_AT_A_TIME));
            let used = bytes.len().min(bytes_left);
            writer.write(&bytes[..used])?;
            bytes_left -= used;
        }
    }
    writer.finish()
}

fn write_texts(folder: &Path, config: &Value) -> Result<(), DummyError> {
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": END_OF_TURN.0,
        "pad_token": END_OF_TEXT.0,
        "add_prefix_space": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": config["max_position_embeddings"],
        "chat_template": CHAT_TEMPLATE,
    });
    let generation_config = json!({
        "eos_token_id": [END_OF_TURN.1, END_OF_TEXT.1],
        "pad_token_id": END_OF_TEXT.1,
    });
    for (name, text) in [
        ("config.json", format!("{config:#}\n")),
        ("tokenizer.json", TOKENIZER_JSON.to_owned()),
        ("tokenizer_config.json", format!("{tokenizer_config:#}\n")),
        ("generation_config.json", format!("{generation_config:#}\n")),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|source| DummyError::File { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Map<String, Value> {
        let mut config = default_config();
        for (key, value) in [("hidden_size", 32), ("intermediate_size", 48), ("num_hidden_layers", 1)] {
            config[key] = value.into();
        }
        config
    }

    #[test]
    fn a_seed_gives_the_same_files_and_another_seed_others() {
        let bytes = |seed| {
            let folder = tempfile::tempdir().unwrap();
            write_model(folder.path(), Some(&tiny()), seed).unwrap();
            fs::read(folder.path().join("model.safetensors")).unwrap()
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn impossible_models_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (key, value, words) in [
            ("model_type", json!("gpt2"), "model_type"),
            ("vocab_size", json!(100), "vocab_size 100"),
            ("num_attention_heads", json!(3), "not a multiple"),
            ("hidden_size", json!(1 << 24), "more than"),
            ("num_hidden_layers", json!(1 << 24), "num_hidden_layers"),
            ("num_hidden_layers", json!(u64::MAX), "num_hidden_layers"),
            ("intermediate_size", json!("many"), "invalid type"),
        ] {
            let mut config = tiny();
            config[key] = value;
            let error = write_model(folder.path(), Some(&config), 0).unwrap_err();
            let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": ");
            assert!(text.contains(words), "{key}: {text}");
        }
        assert!(!folder.path().join("model.safetensors").exists());
    }
}
