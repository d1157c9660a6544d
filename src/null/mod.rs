//! The null server: it answers every protocol that the load generator speaks, on an exact timetable and with no model,
//! so that what a client adds to a measurement can be told from what a server took.
//!
//! ```text
//! request ── arrival ── ttft ── chunk 0 ── itl ── chunk 1 ── itl ── … ── last chunk, then usage and end marks
//! ```
//!
//! - `routes`: what is answered where, HTTP/1.1 and HTTP/2 (gRPC) on one port; `openai`, `triton_http`, `triton_grpc`,
//!   `lmdeploy`: a request in, encoded chunks out; `ask`: what they have in common.
//! - `answer`: chunks that leave when they are due; `metronome`: waiting to a few hundredths of a millisecond.
//! - `truth`: when each chunk really left. [`NullServer`]: threads and sockets.
//!
//! **Invariant:** chunk k is due at arrival + ttft + k x itl, whatever happened to the chunks before it: delays do not
//! add up. Nothing but the write happens between the time in the truth and the chunk's leaving.

mod answer;
mod ask;
mod error;
mod lmdeploy;
mod metronome;
mod openai;
mod routes;
mod serve;
mod triton_grpc;
mod triton_http;
mod truth;

pub use error::NullError;
pub use serve::{NullOptions, NullServer};
