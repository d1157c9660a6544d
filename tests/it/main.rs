//! One test binary: a module per topic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod engine;
mod hub;
mod kserve_code;
mod layers;
mod load;
mod local_hub;
mod manifest;
mod process;
mod schema;
