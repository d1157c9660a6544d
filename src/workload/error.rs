use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a workload could not be made.
#[derive(Debug, Error)]
pub enum WorkloadError {
    #[error("cannot read prompts from `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("line {line} of `{path}`: {problem} (each line is one JSON object such as {{\"text_input\": \"...\"}})")]
    Line { path: PathBuf, line: usize, problem: String },
    #[error("`{path}` has no prompts (each line is one JSON object such as {{\"text_input\": \"...\"}})")]
    Empty { path: PathBuf },
    #[error("cannot load the tokenizer `{path}`: {reason}")]
    Tokenizer { path: PathBuf, reason: String },
    #[error("the tokenizer `{path}` cannot {action}: {reason}")]
    Tokenize { path: PathBuf, action: &'static str, reason: String },
    #[error("cannot make {count} different prompts of exactly {isl} tokens with the tokenizer `{path}`: {reason}")]
    Synthetic { path: PathBuf, isl: u32, count: u64, reason: &'static str },
}
