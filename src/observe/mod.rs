//! What a server says of itself, and what it takes of the host, while a load point is measured.
//!
//! [`Observation::start`] reads the server's `/metrics` page before the load, and from then on now and then; memory,
//! CPU and GPUs are sampled beside it; Triton's statistics are asked before and after. [`Observation::finish`] reads the last page and gives [`ServerFacts`], with checks
//! of the client's own counts ([`Sent`]) against the server's. The series are kept as JSON lines.
//!
//! **Invariant:** watching has a thread of its own, one connection, and one question under way at a time. Whatever a
//! server answers, or if it answers nothing, the measurement goes on: what could not be seen is not known.
//!
//! [`ServerFacts`]: crate::record::ServerFacts

mod checks;
mod families;
mod figures;
mod gpu;
mod idle;
mod machine;
mod observation;
mod prometheus;
mod sent;
mod series;
mod snapshot;
mod statistics;

#[cfg(test)]
mod tests;

pub use gpu::{gpu_memory_mib, visible_gpus};
pub use idle::wait_until_idle;
pub use observation::{Marker, Observation, Watch};
pub use sent::Sent;
