//! A model's shape, from the `config.json` of a Hugging Face folder.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::EngineError;

/// The families that share this forward pass.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Biases on the query, key and value projections.
    Qwen2,
    /// No biases, unless `attention_bias` says so.
    Llama,
}

/// What the forward pass needs of `config.json`; names and defaults are those of Hugging Face transformers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the fields are those of config.json")]
pub struct ModelConfig {
    pub model_type: Family,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// As many as query heads when absent.
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    /// `hidden_size / num_attention_heads` when absent.
    #[serde(default)]
    head_dim: Option<usize>,
    pub max_position_embeddings: usize,
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Option<Value>,
    /// Where transformers 5 writes `rope_theta`.
    #[serde(default)]
    rope_parameters: Option<Value>,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default = "default_hidden_act")]
    hidden_act: String,
    /// Standard deviation of made-up weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    #[serde(default)]
    eos_token_id: Value,
}

/// No real model has a larger dimension; products of two stay far from overflow.
const MAX_DIMENSION: usize = 1 << 24;
/// No real model has more layers.
const MAX_LAYERS: usize = 1024;

impl ModelConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// When the file is not there, is no model configuration, or describes a model that the engine cannot compute.
    pub fn read(folder: &Path) -> Result<Self, EngineError> {
        Self::from_json(&read_json(&folder.join("config.json"))?)
    }

    /// Checks a configuration.
    ///
    /// # Errors
    /// When a field is missing or wrong, with the field's name.
    pub fn from_json(json: &Value) -> Result<Self, EngineError> {
        let model_type = json.get("model_type").unwrap_or(&Value::Null);
        if !matches!(model_type.as_str(), Some("qwen2" | "llama")) {
            return refuse(format!("model_type {model_type} is not supported (known: \"qwen2\", \"llama\")"));
        }
        let config = Self::deserialize(json).map_err(|e| EngineError::Config { complaint: e.to_string() })?;
        config.check()?;
        Ok(config)
    }

    #[must_use]
    pub fn key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// Rows of the query projection.
    #[must_use]
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim()
    }

    /// Rows of the key projection, and of the value projection.
    #[must_use]
    pub fn key_value_size(&self) -> usize {
        self.key_value_heads() * self.head_dim()
    }

    #[must_use]
    pub fn rope_theta(&self) -> f64 {
        let nested = self.rope_parameters.as_ref().and_then(|rope| rope.get("rope_theta")).and_then(Value::as_f64);
        self.rope_theta.or(nested).unwrap_or(10_000.0)
    }

    /// Whether the query, key and value projections have biases.
    #[must_use]
    pub fn has_qkv_bias(&self) -> bool {
        self.model_type == Family::Qwen2 || self.attention_bias
    }

    #[must_use]
    pub fn eos_token_ids(&self) -> Vec<u32> {
        token_ids(&self.eos_token_id)
    }

    fn check(&self) -> Result<(), EngineError> {
        let sizes = [
            ("vocab_size", self.vocab_size, MAX_DIMENSION),
            ("hidden_size", self.hidden_size, MAX_DIMENSION),
            ("intermediate_size", self.intermediate_size, MAX_DIMENSION),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_DIMENSION),
            ("num_key_value_heads", self.key_value_heads(), MAX_DIMENSION),
            ("max_position_embeddings", self.max_position_embeddings, MAX_DIMENSION),
        ];
        for (name, size, limit) in sizes {
            if size == 0 || size > limit {
                return refuse(format!("{name} {size} is not between 1 and {limit}"));
            }
        }
        let (heads, groups) = (self.num_attention_heads, self.key_value_heads());
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return refuse(format!(
                "hidden_size {} is not a multiple of num_attention_heads {heads}",
                self.hidden_size
            ));
        }
        if !heads.is_multiple_of(groups) {
            return refuse(format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {groups}"));
        }
        let head_dim = self.head_dim();
        if head_dim == 0 || head_dim > MAX_DIMENSION || !head_dim.is_multiple_of(2) {
            return refuse(format!("head size {head_dim} is not even and between 2 and {MAX_DIMENSION}"));
        }
        self.check_features()
    }

    fn check_features(&self) -> Result<(), EngineError> {
        for (name, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("initializer_range", self.initializer_range),
            ("rope_theta", self.rope_theta()),
        ] {
            if !value.is_finite() || value <= 0.0 {
                return refuse(format!("{name} {value} is not a positive number"));
            }
        }
        if self.hidden_act != "silu" {
            return refuse(format!("hidden_act `{}` is not supported (known: `silu`)", self.hidden_act));
        }
        let scaling = [&self.rope_scaling, &self.rope_parameters].into_iter().flatten().find_map(|rope| {
            rope.get("rope_type").or_else(|| rope.get("type")).filter(|kind| kind.as_str() != Some("default"))
        });
        if let Some(kind) = scaling {
            return refuse(format!("rope scaling {kind} is not supported"));
        }
        if self.use_sliding_window {
            return refuse("use_sliding_window is not supported".to_owned());
        }
        if self.mlp_bias || (self.model_type == Family::Llama && self.attention_bias) {
            return refuse("biases on the output or MLP projections are not supported".to_owned());
        }
        Ok(())
    }
}

/// Token ids as Hugging Face writes them: none, one or a list.
pub(crate) fn token_ids(json: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match json {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        other => id(other).into_iter().collect(),
    }
}

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EngineError> {
    let bytes = std::fs::read(path).map_err(EngineError::file("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| EngineError::Json { path: path.to_owned(), source })
}

/// Writes a JSON file, indented.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), EngineError> {
    let bytes =
        serde_json::to_vec_pretty(value).map_err(|source| EngineError::Json { path: path.to_owned(), source })?;
    std::fs::write(path, bytes).map_err(EngineError::file("write", path))
}

fn refuse<T>(complaint: String) -> Result<T, EngineError> {
    Err(EngineError::Config { complaint })
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_hidden_act() -> String {
    "silu".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaint(changes: &Value) -> String {
        let mut config = json!({
            "model_type": "qwen2", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        ModelConfig::from_json(&config).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn silly_shapes_are_refused_by_name() {
        assert_eq!(complaint(&json!({})), "");
        for (changes, words) in [
            (json!({"model_type": "gpt2"}), "model_type \"gpt2\""),
            (json!({"hidden_size": 0}), "hidden_size 0"),
            (json!({"vocab_size": u64::MAX}), "vocab_size"),
            (json!({"hidden_size": -4}), "invalid value"),
            (json!({"hidden_size": 33}), "not a multiple of num_attention_heads"),
            (json!({"num_key_value_heads": 3}), "not a multiple of num_key_value_heads"),
            (json!({"head_dim": 3}), "head size 3"),
            (json!({"rope_scaling": {"rope_type": "yarn"}}), "rope scaling \"yarn\""),
            (json!({"hidden_act": "gelu"}), "hidden_act"),
            (json!({"rms_norm_eps": 0.0}), "rms_norm_eps"),
        ] {
            let text = complaint(&changes);
            assert!(text.contains(words), "{changes}: {text}");
        }
    }
}
