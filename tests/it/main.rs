//! One test binary: a module per topic.

mod engine;
mod kserve_code;
