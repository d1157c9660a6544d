//! `cargo +nightly fuzz run manifest`: no text makes the reader panic, and what it accepts it reads again.
#![no_main]

use benchrun::manifest::{Format, read_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for format in [Format::Yaml, Format::Toml] {
        match read_text("fuzzed", text, format) {
            Ok(document) => {
                let written = serde_json::to_string(&document.value).expect("a manifest is JSON");
                let again = read_text("written", &written, Format::Yaml).expect("what was accepted is accepted again");
                assert_eq!(again.value, document.value);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
