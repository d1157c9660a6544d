//! The KServe v2 gRPC protocol: generated messages, client and server, used by the load generator and the engine; and
//! the descriptors of Triton's model configuration, for reading `config.pbtxt` files.
//!
//! `inference.rs` is generated from `kserve.proto` and `model_config.bin` from `model_config.proto`. Both are committed, so
//! that a build needs neither `protoc` nor a build script; a test generates them again and compares.

#[expect(clippy::all, clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
#[rustfmt::skip]
mod inference;

pub use inference::*;

/// A `FileDescriptorSet` with the message `inference.ModelConfig`, whole: a key that Triton knows is there.
pub const MODEL_CONFIG_DESCRIPTORS: &[u8] = include_bytes!("model_config.bin");
