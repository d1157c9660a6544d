#!/usr/bin/env bash
# Format, lint, tests: the same for people and for CI.
#
# Everything uses the release profile, as `cargo run --release` does, so that the dependencies are compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --check
cargo clippy --release --all-targets --quiet -- --deny warnings
cargo test --release --quiet
