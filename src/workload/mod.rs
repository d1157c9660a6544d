//! What is sent: prompts out of files or made here, exact under the model's tokenizer, and the hash that names them.
//!
//! **Invariant:** a workload is a pure function of its files, its tokenizer and its seed, and is whole before the first
//! request is sent.

mod conversation;
mod counter;
mod counts;
mod draw;
mod error;
#[cfg(test)]
mod fixture;
mod joints;
mod make;
mod pairs;
mod parquet;
mod prompt;
mod python_random;
mod quota;
mod rows;
mod sharegpt;
mod source;
mod synthetic;
mod tokenizer;
mod trace;
mod unique;
mod words;

pub use error::{Place, WorkloadError};
pub use make::make;
pub use prompt::{Content, Message, Prompt, Workload};
pub use source::{AnswerLengths, Source};
pub use tokenizer::Tokenizer;
