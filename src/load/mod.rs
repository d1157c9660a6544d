//! Load on a server: clients for HTTP and gRPC, and the closed loop that drives them.
//!
//! [`run`] carries out one load point. Each worker owns one connection and has one request under way at a time. While
//! an answer arrives, a worker takes the time of each chunk and keeps its bytes; everything else (framing, parsing,
//! token counting, writing) happens in the writer's thread, after the request has ended.
//!
//! **Invariant:** the receive path does not look into an answer beyond what it needs to find its end; no bytes of a
//! server make this module panic; no request is sent twice in silence.

mod address;
mod answer;
mod connection;
mod error;
mod exchange;
mod grpc;
mod http;
mod json_text;
mod openai;
mod point;
mod probe;
mod request;
mod sse;
mod triton_answer;
mod triton_request;
mod worker;
mod writer;

#[cfg(test)]
mod tests;

pub use error::LoadError;
pub use point::{CutOff, LoadJob, PointRun, Target, run};
pub use probe::answers;
pub use writer::RecordSink;
