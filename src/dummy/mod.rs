//! Models made here: random weights and a real tokenizer, for benchmarks that need a model's cost and not its answers.
//!
//! **Invariant:** no network and no clock; the same configuration and seed give the same bytes on every machine.

mod tokenizer;
mod weights;
mod write;

/// Raised when the same configuration and seed give other bytes than before: it is part of every key.
pub const GENERATOR: u32 = 1;

pub use write::{DummyError, default_config, write_model};
