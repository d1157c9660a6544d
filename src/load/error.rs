use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a load point could not be prepared or recorded. What happens to one request is on its record instead.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("`{url}` is not the address of a server: {reason} (write it as `http://host:port`)")]
    Address { url: String, reason: String },
    #[error("`{model}` cannot be part of a URL; it has to be the name under which the server knows the model")]
    ModelName { model: String },
    #[error("cannot read the tensors of model `{model}` from `{url}`: {reason}")]
    Metadata { model: String, url: String, reason: String },
    #[error("model `{model}` cannot be asked for text: it has no input `{input}` (its inputs: {})", .inputs.join(", "))]
    NotTextModel { model: String, input: String, inputs: Vec<String> },
    #[error("there are no prompts to send")]
    NoPrompts,
    #[error("cannot write the records of requests to `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read prompts from `{path}`")]
    ReadPrompts { path: PathBuf, source: io::Error },
    #[error("line {line} of `{path}`: {problem} (each line is one JSON object such as {{\"text_input\": \"...\"}})")]
    PromptLine { path: PathBuf, line: usize, problem: String },
    #[error("`{path}` has no prompts (each line is one JSON object such as {{\"text_input\": \"...\"}})")]
    EmptyPrompts { path: PathBuf },
    #[error("cannot load the tokenizer `{path}`: {reason}")]
    Tokenizer { path: PathBuf, reason: String },
    #[error("the tokenizer `{path}` cannot {action}: {reason}")]
    Tokenize { path: PathBuf, action: &'static str, reason: String },
    #[error("cannot make {count} different prompts of exactly {isl} tokens with the tokenizer `{path}`: {reason}")]
    Synthetic { path: PathBuf, isl: u32, count: u64, reason: &'static str },
}
