//! One test binary: a module per topic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kserve_code;
mod manifest;
mod schema;
