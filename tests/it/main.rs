//! One test binary: a module per topic.

mod engine;
mod hub;
mod kserve_code;
mod load;
mod local_hub;
mod manifest;
mod process;
mod schema;
