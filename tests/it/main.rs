//! One test binary: a module per topic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::float_cmp, reason = "counts are whole numbers, exact as floats")]

mod apply;
mod bench;
mod bench_scripts;
mod certificate;
mod commands;
mod docker;
mod engine;
mod engines;
mod env;
mod failures;
mod flags;
mod hub;
mod in_process;
mod interrupt;
mod keys;
mod kserve_code;
mod layers;
mod lmdeploy;
mod load;
mod local_hub;
mod manifest;
mod null;
mod observe;
mod process;
mod real_llamacpp;
mod recipes;
mod refusals;
mod rounds;
mod schema;
mod search;
mod served;
mod tensorrt_llm;
mod triton_cpu;
mod venv;
