#!/usr/bin/env bash
# How long and how big `benchrun plan` is for 100,000 cells, and how long `benchrun --help` takes.
#   scripts/bench_plan.sh [BENCHRUN]     the release build by default
# Must hold: each plan under 2 s and 500 MB, `--help` under 20 ms.
set -euo pipefail
cd "$(dirname "$0")/.."
benchrun=$(realpath "${1:-target/release/benchrun}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

list() { seq -s ', ' "$1"; }
pairs() { seq "$1" | sed 's/.*/[&, 16]/' | paste -sd, -; }

manifest() { # NAME, then the axes
    cat >"$work/$1.yaml" <<YAML
name: $1
models: {a: {dummy: {}}, b: {dummy: {seed: 1}}, c: {dummy: {seed: 2}}, d: {dummy: {seed: 3}}}
engine: {name: embedded}
matrix:
  axes:
$2
benchmarks: {load: {protocol: openai-completions, concurrency: [8], requests: 100}}
YAML
}

# Two of the five precisions are ones that the engine does not have: such cells stay in the plan as unsupported.
manifest few_servers "    precision: [fp32, fp16, int8_wo, fp8, int4_awq]
    batch_size: [$(list 50)]
    isl/osl: [$(pairs 100)]"
manifest many_servers "    precision: [fp32, fp16]
    batch_size: [$(list 125)]
    max_seq_len: [$(seq -s ', ' 128 177)]
    threads: [0, 1]
    isl/osl: [[8, 4]]"

python3 - "$benchrun" "$work" <<'PYTHON'
import os, statistics, sys, time

benchrun, work = sys.argv[1:]

def measure(*arguments):
    """Seconds, and the peak resident memory in MB."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.chdir(work)
        os.dup2(os.open("out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.execv(benchrun, [benchrun, *arguments])
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"{arguments} failed")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6

for name in ["few_servers", "many_servers"]:
    for arguments in [["plan"], ["plan", "--format", "json"]]:
        seconds, megabytes = measure(*arguments, f"{name}.yaml")
        size = os.path.getsize(f"{work}/out") / 1e6
        print(f"{name:13} {' '.join(arguments):18} {seconds:6.2f} s {megabytes:6.0f} MB, prints {size:.0f} MB", flush=True)
times = sorted(1000 * measure("--help")[0] for _ in range(20))
print(f"--help        median {statistics.median(times):.1f} ms, slowest of 20 {times[-1]:.1f} ms")
PYTHON
