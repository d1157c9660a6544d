//! Ids, hashing, atomic writes, scalars and secrets: what every other module may use.
//!
//! **Invariant:** nothing here knows about manifests, steps or servers.

mod file;
mod hash;
mod id;
mod scalar;
mod secret;
mod text;

pub use file::{PartFile, append_line, disk_full_hint, write_atomically};
pub use hash::{Digest, sha256_file};
pub use id::{CellId, RunId, StepKey};
pub use scalar::Scalar;
pub use secret::Secret;
pub use text::plain_text;
