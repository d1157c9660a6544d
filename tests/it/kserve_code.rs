//! The committed gRPC code and descriptors are what their `.proto` files give.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

/// Set to write the files instead of comparing them.
const UPDATE: &str = "BENCHRUN_UPDATE_GENERATED";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kserve")
}

#[track_caller]
fn is_current(committed: &str, source: &str, generated: &[u8]) {
    let committed = folder().join(committed);
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever changes the .proto")]
    if std::env::var(UPDATE).is_ok() {
        fs::write(&committed, generated).unwrap();
    }
    assert!(
        generated == fs::read(&committed).unwrap(),
        "{} is not what {source} gives; run the tests once with {UPDATE}=1",
        committed.display()
    );
}

#[test]
fn generated_code_is_current() {
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile([folder().join("kserve.proto")], [folder()]).unwrap();
    tonic_prost_build::configure().bytes(".").out_dir(out.path()).compile_fds(descriptors).unwrap();
    is_current("inference.rs", "kserve.proto", &fs::read(out.path().join("inference.rs")).unwrap());
}

#[test]
fn the_descriptors_of_the_model_configuration_are_current() {
    let mut descriptors = protox::compile([folder().join("model_config.proto")], [folder()]).unwrap();
    // Comments and lines are for people who read the `.proto`.
    descriptors.file.iter_mut().for_each(|file| file.source_code_info = None);
    is_current("model_config.bin", "model_config.proto", &descriptors.encode_to_vec());
}
