use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a workload could not be made.
#[derive(Debug, Error)]
pub enum WorkloadError {
    #[error("cannot read prompts from `{path}`")]
    Read { path: PathBuf, source: io::Error },
    /// The whole file is not what it was taken for.
    #[error("cannot read `{path}`: {problem}")]
    Format { path: PathBuf, problem: String },
    #[error("{place} of `{path}`: {problem}")]
    Row { path: PathBuf, place: Place, problem: String },
    #[error("`{path}` has no prompts (it needs {needed})")]
    Empty { path: PathBuf, needed: &'static str },
    #[error("the data of phase `{phase}` were not read")]
    NotRead { phase: String },
    #[error("nothing says how long the answer to prompt {prompt} is")]
    NoAnswerLength { prompt: usize },
    #[error(
        "a load point of {requests} requests cannot be held in memory (at most {most}; give `requests` or `duration`)"
    )]
    TooMany { requests: usize, most: u64 },
    #[error("phase `{phase}` needs the model's tokenizer: {reason}")]
    NoTokenizer { phase: String, reason: String },
    #[error("{found} conversations of fitting length are fewer than the {wanted} that are to be drawn from them")]
    TooFew { found: usize, wanted: usize },
    #[error("requests can only be drawn from the data of phase `{phase}` when it says how many: give `requests`")]
    NoNumber { phase: String },
    #[error("cannot draw a number: {reason}")]
    Draw { reason: String },
    #[error("cannot load the tokenizer `{path}`: {reason}")]
    Tokenizer { path: PathBuf, reason: String },
    #[error("the tokenizer `{path}` cannot {action}: {reason}")]
    Tokenize { path: PathBuf, action: &'static str, reason: String },
    #[error("cannot make {count} different prompts of exactly {isl} tokens with the tokenizer `{path}`: {reason}")]
    Synthetic { path: PathBuf, isl: u32, count: u64, reason: &'static str },
    #[error("cannot put {tokens} tokens before prompt {prompt} with the tokenizer `{path}` (take more of them)")]
    UniquePrefix { path: PathBuf, prompt: usize, tokens: u32 },
}

/// Where in a file something is, from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    Line(u64),
    /// Of a JSON list.
    Entry(u64),
    /// Of a table without lines.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Entry(number) => write!(f, "entry {number}"),
            Self::Row(number) => write!(f, "row {number}"),
        }
    }
}
