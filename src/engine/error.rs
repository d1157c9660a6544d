//! What can go wrong before a server is up.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a model could not be quantized, built or served.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("unknown precision `{name}` (known: `fp32`, `fp16`, `int8_wo`)")]
    UnknownPrecision { name: String },
    #[error("cannot {action} `{}`", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}` is not valid JSON for its purpose", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("model configuration: {complaint}")]
    Config { complaint: String },
    #[error("`{}`: {complaint}", path.display())]
    Tensors { path: PathBuf, complaint: String },
    #[error("tensor `{name}`: {complaint}")]
    Tensor { name: String, complaint: String },
    #[error("`{}`: cannot read the tokenizer: {complaint}", path.display())]
    Tokenizer { path: PathBuf, complaint: String },
    #[error("`{}` is quantized already, to {precision}; quantize from the original model", path.display())]
    AlreadyQuantized { path: PathBuf, precision: super::Precision },
    #[error("max_seq_len {asked} is over the model's max_position_embeddings {limit}")]
    SequenceTooLong { asked: usize, limit: usize },
    #[error("max_batch_size {asked} is over {limit}, which the engine was built for")]
    BatchTooLarge { asked: usize, limit: usize },
    #[error("{name} must be at least 1")]
    Zero { name: &'static str },
    #[error("`{}` has engine format {found}; this program reads format {known}: build it again", path.display())]
    Format { path: PathBuf, found: u32, known: u32 },
    #[error("cannot listen on {purpose} port {port} of `{host}`")]
    Listen { purpose: &'static str, host: String, port: u16, source: io::Error },
    #[error("the {purpose} server stopped")]
    Server { purpose: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot make the thread pool")]
    Threads { source: rayon::ThreadPoolBuildError },
    #[error("the model cannot compute")]
    Compute(#[from] candle_core::Error),
    #[error("the model thread stopped by itself, which is a bug")]
    ModelThread,
}

impl EngineError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}
