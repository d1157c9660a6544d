//! Models of a Hugging Face hub, whole or not at all, in the cache layout that other tools share.
//!
//! [`Hub::resolve`] pins a revision to a commit, [`Hub::list`] names the commit's files with their hashes, [`wanted`]
//! chooses among them, and [`Hub::fetch`] brings the missing ones. hf-hub finds the cache, the login and the commit.
//! Listing and downloading are done here: hf-hub 1.0.0 drops the sha256 of a listing, does not resume, compares
//! neither length nor hash, and has stored an error page as weights.
//!
//! **Invariant:** a file enters `blobs/` only after its size and hash agreed with the listing, and a token leaves this
//! module only in the `Authorization` header of a request to the hub itself.

mod answer;
mod cache;
mod client;
mod disk;
mod download;
mod error;
mod fetch;
mod listing;
mod part;
mod patterns;
mod retry;
mod settings;
mod verify;

pub use client::{Hub, Pinned, Source};
pub use error::{Credentials, HubError};
pub use fetch::{Snapshot, SnapshotFile};
pub use listing::RemoteFile;
pub use patterns::wanted;
pub use settings::{HubSettings, Patience};
pub use verify::BlobHash;
