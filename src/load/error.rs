use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::workload::WorkloadError;

/// Why a load point could not be prepared or recorded. What happens to one request is on its record instead.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("`{url}` is not the address of a server: {reason} (write it as `http://host:port`)")]
    Address { url: String, reason: String },
    #[error("`{model}` cannot be part of a URL; it has to be the name under which the server knows the model")]
    ModelName { model: String },
    #[error("cannot read the name of a model from `{url}`: {reason}")]
    Models { url: String, reason: String },
    #[error("cannot read the tensors of model `{model}` from `{url}`: {reason}")]
    Metadata { model: String, url: String, reason: String },
    #[error("cannot use LMDeploy's models on `{url}`: {reason}")]
    Chatbot { url: String, reason: String },
    #[error("model `{model}` cannot be asked for text: it has no input `{input}` (its inputs: {})", .inputs.join(", "))]
    NotTextModel { model: String, input: String, inputs: Vec<String> },
    #[error(
        "model `{model}` cannot be kept from ending an answer early: it has no input `min_length` or `min_tokens` (measure it \
         with `output: {{mode: at_most}}`, or `bench` without `--exact`)"
    )]
    NoExactLength { model: String },
    #[error("model `{model}` cannot be asked for {beams} beams: it has no input `beam_width`")]
    NoBeams { model: String, beams: u32 },
    #[error("there are no prompts to send")]
    NoPrompts,
    #[error("{needed} open files are needed, and this process may have {limit} at most (raise `ulimit -Hn`)")]
    OpenFiles { needed: u64, limit: u64 },
    #[error("cannot raise the limit on open files")]
    RaiseOpenFiles { source: io::Error },
    #[error("cannot write the records of requests to `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot count the tokens of an answer")]
    Count(#[from] WorkloadError),
}
