//! The KServe v2 gRPC protocol: generated messages, client and server, used by the load generator and the engine.
//!
//! `inference.rs` is generated from `kserve.proto` and committed, so that a build needs neither `protoc` nor a build
//! script; a test generates it again and compares.

#[expect(clippy::all, clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
#[rustfmt::skip]
mod inference;

pub use inference::*;
