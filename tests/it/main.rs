//! One test binary: a module per topic.

mod kserve_code;
mod load;
