//! What is sent: prompts out of files or made here, exact under the model's tokenizer, and the hash that names them.
//!
//! **Invariant:** a workload is a pure function of its files, its tokenizer and its seed, and is whole before the first
//! request is sent.

mod error;
mod prompt;
mod synthetic;
mod tokenizer;

pub use error::WorkloadError;
pub use prompt::{Content, Message, Prompt, Workload, count_tokens, jsonl, synthetic, workload_hash};
pub use tokenizer::Tokenizer;
