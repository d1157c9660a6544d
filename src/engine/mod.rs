//! The embedded CPU engine: quantize, build, serve.

mod build;
mod config;
mod error;
mod folder;
mod matrix;
mod model;
mod precision;
mod quantize;
mod sample;
mod tensors;
mod weights;

pub use build::{BuildOptions, build};
pub use config::{Family, ModelConfig};
pub use error::EngineError;
pub use precision::Precision;
pub use quantize::quantize;
