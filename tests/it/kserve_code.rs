//! The committed gRPC code is what its `.proto` gives.

use std::fs;
use std::path::Path;

/// Set to write the file instead of comparing it.
const UPDATE: &str = "BENCHRUN_UPDATE_GENERATED";

#[test]
fn generated_code_is_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kserve");
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile([folder.join("kserve.proto")], [&folder]).unwrap();
    tonic_prost_build::configure().bytes(".").out_dir(out.path()).compile_fds(descriptors).unwrap();
    let generated = fs::read_to_string(out.path().join("inference.rs")).unwrap();
    let committed = folder.join("inference.rs");
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever changes the .proto")]
    if std::env::var(UPDATE).is_ok() {
        fs::write(&committed, &generated).unwrap();
    }
    assert!(
        generated == fs::read_to_string(&committed).unwrap(),
        "src/kserve/inference.rs is not what kserve.proto gives; run the tests once with {UPDATE}=1"
    );
}
