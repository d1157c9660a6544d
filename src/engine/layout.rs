//! Which tensors a model has: their names in a checkpoint, and how the forward pass stacks them.

use safetensors::tensor::Dtype;

use crate::engine::config::ModelConfig;
use crate::engine::tensors::Outline;

/// A tensor of the forward pass: some tensors of the checkpoint, stacked along the first dimension.
///
/// Query, key and value are one matrix, and so are gate and up: fewer, larger products.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Names in the checkpoint, with their rows.
    pub(crate) sources: Vec<(String, usize)>,
    /// `None` for a vector.
    columns: Option<usize>,
}

impl Part {
    pub(crate) fn shape(&self) -> Vec<usize> {
        let rows = self.sources.iter().map(|(_, rows)| rows).sum();
        std::iter::once(rows).chain(self.columns).collect()
    }
}

/// Every tensor of a model.
pub(crate) fn parts(config: &ModelConfig) -> Vec<Part> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (query, key_value) = (config.query_size(), config.key_value_size());
    let mut parts = vec![
        part("embedding.weight", "model", &[("embed_tokens.weight", config.vocab_size)], Some(hidden)),
        part("norm.weight", "model", &[("norm.weight", hidden)], None),
    ];
    if !config.tie_word_embeddings {
        let sources = vec![("lm_head.weight".to_owned(), config.vocab_size)];
        parts.push(Part { name: "head.weight".to_owned(), sources, columns: Some(hidden) });
    }
    for layer in 0..config.num_hidden_layers {
        let mut add = |name: &str, sources: &[(&str, usize)], columns| {
            parts.push(part(&format!("layers.{layer}.{name}"), &format!("model.layers.{layer}"), sources, columns));
        };
        add("input_norm.weight", &[("input_layernorm.weight", hidden)], None);
        let rows = [query, key_value, key_value];
        let qkv = ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"];
        add("qkv.weight", &zip(qkv, rows), Some(hidden));
        if config.has_qkv_bias() {
            let qkv = ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];
            add("qkv.bias", &zip(qkv, rows), None);
        }
        add("out.weight", &[("self_attn.o_proj.weight", hidden)], Some(query));
        add("post_norm.weight", &[("post_attention_layernorm.weight", hidden)], None);
        add("gate_up.weight", &[("mlp.gate_proj.weight", inner), ("mlp.up_proj.weight", inner)], Some(hidden));
        add("down.weight", &[("mlp.down_proj.weight", hidden)], Some(inner));
    }
    parts
}

/// The tensors of a 32-bit checkpoint, under the names of Hugging Face transformers.
pub(crate) fn checkpoint_outlines(config: &ModelConfig) -> Vec<Outline> {
    let outlines = parts(config).into_iter().flat_map(|part| {
        part.sources.into_iter().map(move |(name, rows)| Outline {
            name,
            dtype: Dtype::F32,
            shape: std::iter::once(rows).chain(part.columns).collect(),
        })
    });
    outlines.collect()
}

fn part(name: &str, prefix: &str, sources: &[(&str, usize)], columns: Option<usize>) -> Part {
    let sources = sources.iter().map(|(source, rows)| (format!("{prefix}.{source}"), *rows)).collect();
    Part { name: name.to_owned(), sources, columns }
}

fn zip(names: [&str; 3], rows: [usize; 3]) -> Vec<(&str, usize)> {
    names.into_iter().zip(rows).collect()
}
