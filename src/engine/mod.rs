//! The embedded CPU engine: quantize, build, serve.

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
mod text;
mod triton;
mod triton_grpc;
mod triton_http;
mod triton_tensors;
mod weights;

pub use build::{BuildOptions, build};
pub use config::{Family, ModelConfig};
pub use error::EngineError;
pub use precision::Precision;
pub use quantize::quantize;
pub use serve::{Addresses, ServeOptions, serve};

// What a writer of checkpoints needs.
pub(crate) use layout::checkpoint_outlines;
pub(crate) use tensors::{Outline, TensorWriter};
