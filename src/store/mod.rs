//! What stays on disk: step outputs by key ([`Store`]) and the folders of runs ([`Runs`]).
//!
//! ```text
//! <home>/store/<kind>/<key>/{material.json, output/…}    whole or not there
//! <home>/store/{tmp, locks, counts, hashes.json}
//! <home>/runs/<manifest name>/<run id>/…, and a link `latest` beside it
//! ```
//!
//! **Invariant:** an output is made under a lock, in a temporary folder, and appears by one rename: half of one is never
//! seen, and two runs at once on one store are safe.

mod error;
mod hashes;
mod lock;
mod outputs;
mod runs;

pub use error::StoreError;
pub use hashes::FileHashes;
pub use lock::{Hold, Lock};
pub use outputs::{Draft, Entry, Store};
pub use runs::{EventLog, RunFolder, Runs};
