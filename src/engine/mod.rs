//! The embedded CPU engine: models of the Qwen2 and Llama families, quantized, built and served on this machine.
//!
//! ```text
//! Hugging Face folder ─quantize→ the same in another precision ─build→ engine folder ─serve→ OpenAI HTTP, Triton HTTP and gRPC
//! ```
//!
//! - On disk: [`quantize`], [`build`]; `tensors` reads and writes safetensors, `layout` and `weights` know the names.
//! - Computing: `matrix` (products in the stored precision), `model` (the forward pass), `sample`.
//! - Serving: `scheduler` (continuous batching on the model's thread), `service` (what protocols share), `openai`,
//!   `triton_http`, `triton_grpc`, [`serve`].
//!
//! Answers come as one chunk for each generated token; its text is empty when the token is special, or only a part of
//! a character, whose text comes with the token that completes it.
//!
//! **Invariant:** nothing here knows of manifests, plans or recipes; to the runner this is a server like any other.

mod build;
mod chat;
mod config;
mod error;
mod folder;
mod layout;
mod matrix;
mod metrics;
mod model;
mod openai;
mod precision;
mod quantize;
mod sample;
mod scheduler;
mod serve;
mod service;
mod tensors;
#[cfg(test)]
mod tests;
mod text;
mod triton;
mod triton_grpc;
mod triton_http;
mod triton_tensors;
mod weights;

/// Raised when the engine quantizes, builds or computes otherwise than before: it is part of every key.
pub const REVISION: u32 = 1;

pub use build::{BuildOptions, build};
pub use config::{Family, ModelConfig};
pub use error::EngineError;
pub use precision::Precision;
pub use quantize::quantize;
pub use serve::{Addresses, ServeOptions, serve};

// What a writer of checkpoints needs.
pub(crate) use layout::checkpoint_outlines;
pub(crate) use tensors::{Outline, TensorWriter};
