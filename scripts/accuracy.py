#!/usr/bin/env python3
"""How exact and how light the load generator is, on this host.

    scripts/accuracy.py measure [BENCHRUN]           time stamps and CPU at 1 to 1,000 streams, all protocols
    scripts/accuracy.py scale [BENCHRUN]             10,000 streams, a million requests, 2,000 requests a second
    scripts/accuracy.py compare RUN_FOLDER TRUTH.jsonl

`measure` and `scale` start `benchrun engine --null`, a server without a model on an exact timetable, and put load on it
with BENCHRUN (target/release/benchrun if absent). `compare` holds the records of a run of `benchrun bench` or `benchrun
apply` against the log of any server on the same host: one line with `monotonic_start_ns`, then one for each request with
`client_id` (the number that the request carried as `x-request-id`, or as its KServe id) and `chunks_ns`, taken right
before each chunk was written. Both clocks are the host's CLOCK_MONOTONIC. A chunk's error is the client's stamp less the
server's; the first chunk's is that of TTFT.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path


def percentile(values, p):
    """Linear interpolation between closest ranks, as numpy does."""
    values = sorted(values)
    rank = (len(values) - 1) * p / 100
    low = int(rank)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (rank - low)


def read_truth(path):
    """Requests by (client id, absolute time of arrival), in the order of arrival."""
    with open(path) as lines:
        start = json.loads(next(lines))["monotonic_start_ns"]
        requests = [json.loads(line) for line in lines]
    return start, sorted(requests, key=lambda request: request["arrival_ns"])


def compare(point_folder, start, truth):
    point = json.loads((point_folder / "point.json").read_text())
    origin = point["client"]["began_monotonic_ns"]
    with open(point_folder / "requests.jsonl") as lines:
        records = [json.loads(line) for line in lines]
    begin = origin + min(record["sent_ns"] for record in records)
    end = origin + max(record["end_ns"] for record in records)
    mine = {
        str(request.get("client_id", request.get("id"))): request
        for request in truth
        if begin <= start + request["arrival_ns"] <= end
    }
    first, later, travel, lost = [], [], [], 0
    for record in records:
        if record["kind"] != "measure" or record["status"] != "ok":
            continue
        request = mine.get(str(record["request"]))
        if request is None or len(request["chunks_ns"]) != len(record["chunk_ns"]):
            lost += 1
            continue
        errors = [
            (origin + client - start - server) / 1e6
            for client, server in zip(record["chunk_ns"], request["chunks_ns"])
        ]
        first.append(errors[0])
        later.extend(errors[1:])
        travel.append((start + request["arrival_ns"] - origin - record["sent_ns"]) / 1e6)
    return point, first, later, travel, lost


def show_comparison(run, truth_file):
    start, truth = read_truth(truth_file)
    names = ["protocol", "point", "requests", "chunks", "not matched", "TTFT error p50", "p99", "chunk error p50", "p99", "sent to arrival p50", "p99"]
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    folders = [path.parent for path in run.glob("cells/**/point.json")]
    for folder in sorted(folders, key=lambda folder: json.loads((folder / "point.json").read_text())["order"]):
        point, first, later, travel, lost = compare(folder, start, truth)
        figures = [
            f"{percentile(values, p):.3f}" if values else ""
            for values in (first, later, travel)
            for p in (50, 99)
        ]
        cells = [point["protocol"], folder.name, len(first), len(first) + len(later), lost, *figures]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


@contextmanager
def null_server(benchrun, folder, *flags):
    port_file = folder / "port.json"
    port_file.unlink(missing_ok=True)
    command = [benchrun, "engine", "--null", "--port", "0", "--port-file", port_file, *flags]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not port_file.exists() or not port_file.read_text():
            time.sleep(0.02)
        yield "http://" + json.loads(port_file.read_text())["address"]
    finally:
        server.terminate()
        server.wait()


def run_with_cost(command):
    """Runs it; CPU seconds and peak memory in MiB of it and its children."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{command} ended with status {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def stolen():
    """CPU seconds that this virtual machine did not get, since it started."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def measure(benchrun, folder):
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"text_input": f"prompt {n} of some words"}) + "\n" for n in range(1000)))
    for streams, requests, tokens in [(1, 20, 50), (10, 100, 50), (100, 400, 50), (1000, 2000, 200)]:
        for protocol in ["openai", "openai-chat", "http-stream", "grpc"]:
            truth = folder / "truth.jsonl"
            with null_server(benchrun, folder, "--ttft", "50ms", "--itl", "20ms", "--truth", truth) as url:
                stolen_before = stolen()
                command = [benchrun, "--home", folder / "home", "bench", "-u", url, "-i", protocol, "-m", "ensemble"]
                command += ["--concurrency", str(streams), "--requests", str(requests), "--warmup-requests", str(streams)]
                command += ["--input-data", prompts, "--max-tokens", str(tokens)]
                cpu_s, memory_mib = run_with_cost(command)
            show_comparison(folder / "home/runs/bench/latest", truth)
            chunks = (requests + streams) * tokens
            # With few chunks it is mostly the start of the program.
            cost = f"{cpu_s / chunks * 1e6:.1f} us of CPU a chunk, " if chunks > 100_000 else ""
            print(f"{cost}{memory_mib:.0f} MiB, {stolen() - stolen_before:.1f} s stolen by other machines", flush=True)


SCALE = """
name: scale
models: {{m: {{dummy: {{}}}}}}
engine:
  name: endpoint
  settings: {{url: "{url}", grpc_url: "{url}", served_model: ensemble, ready: /health}}
matrix: {{axes: {{precision: [as_served]}}}}
certify: false
benchmarks:
  load:
    protocol: {protocol}
    data: {{synthetic: {{isl: 16}}}}
    output: {{mode: at_most, tokens: {tokens}}}
    {load}
"""


def scale(benchrun, folder):
    cases = [
        ("10,000 streams for a minute", ["--ttft", "1s", "--itl", "500ms"], 120, "{concurrency: [10000], requests: 10000, warmup_requests: 0}"),
        ("a million requests", [], 2, "{concurrency: [64], requests: 1000000, point_timeout: 2h}"),
        ("2,000 requests a second", ["--ttft", "20ms", "--itl", "5ms"], 8, "{request_rate: [2000], duration: 20s, warmup_requests: 2000}"),
    ]
    for name, flags, tokens, load in cases:
        for protocol in ["openai-completions", "triton-grpc"]:
            with null_server(benchrun, folder, *flags) as url:
                manifest = folder / "scale.yaml"
                lines = "\n    ".join(load.strip("{}").split(", "))
                manifest.write_text(SCALE.format(url=url, protocol=protocol, tokens=tokens, load=lines))
                stolen_before, began = stolen(), time.monotonic()
                cpu_s, memory_mib = run_with_cost([benchrun, "--home", folder / "home", "apply", "--rerun", "bench", manifest])
            with open(folder / "home/runs/scale/latest/results.csv") as rows:
                row = list(csv.DictReader(rows))[-1]
            wanted = ["status", "requests_sent", "requests_ok", "requests_failed", "requests_per_s", "request_rate_reached", "dispatch_lag_ms_p99"]
            figures = ", ".join(f"{column} {row[column]}" for column in wanted if row[column])
            print(f"{name}, {protocol}: {figures}; {memory_mib:.0f} MiB, {cpu_s:.0f} s of CPU in {time.monotonic() - began:.0f} s, {stolen() - stolen_before:.1f} s stolen by other machines", flush=True)


def main():
    arguments = sys.argv[1:]
    if len(arguments) == 3 and arguments[0] == "compare":
        show_comparison(Path(arguments[1]), arguments[2])
        return
    if len(arguments) not in (1, 2) or arguments[0] not in ("measure", "scale"):
        sys.exit(__doc__)
    benchrun = arguments[1] if len(arguments) == 2 else Path(__file__).parent.parent / "target/release/benchrun"
    with tempfile.TemporaryDirectory() as folder:
        {"measure": measure, "scale": scale}[arguments[0]](benchrun, Path(folder))


if __name__ == "__main__":
    main()
