//! Load on a server: clients for HTTP and gRPC, and the loops that drive them.
//!
//! [`run`] carries out one load point. Requests live on shards: threads with an event loop of their own, half as many as
//! the host has cores. While an answer arrives, a shard takes the time of each read and keeps its bytes; everything else
//! (framing, parsing, token counting, writing) happens in a writer's thread after the request has ended. In open loop
//! another thread keeps time.
//!
//! **Invariant:** the receive path does not look into an answer beyond what it needs to find its end; no bytes of a
//! server make this module panic; no request is sent twice in silence, and no clock starts anew.

mod address;
mod answer;
mod busiest;
mod closed;
mod connection;
mod error;
mod exchange;
mod grpc;
mod http;
mod http1;
mod in_process;
mod job;
mod json_text;
mod lmdeploy;
mod lmdeploy_models;
mod lmdeploy_tensors;
mod method_body;
mod open;
mod open_files;
mod openai;
mod point;
mod probe;
mod reading;
mod received;
mod request;
mod schedule;
mod sender;
mod signs;
mod socket_queue;
mod sse;
mod threads;
mod triton_answer;
mod triton_request;
mod writer;

#[cfg(test)]
mod tests;

pub use busiest::busiest;
pub use error::LoadError;
pub use point::{CutOff, LoadJob, PointRun, Target, run};
pub use probe::{answers, first_model};
pub use writer::RecordSink;
