#!/usr/bin/env python3
"""How exact and how light the load generator is, on this host.

    scripts/accuracy.py measure [BENCHRUN [ROUNDS]]  time stamps and CPU at 1 to 1,000 streams, beside a bare loop
    scripts/accuracy.py speed [BENCHRUN [ROUNDS]]    chunks a second that it can take in, beside a bare loop
    scripts/accuracy.py protocols [BENCHRUN]         the same timetable over every protocol
    scripts/accuracy.py scale [BENCHRUN]             10,000 streams, a million requests, 2,000 requests a second
    scripts/accuracy.py starve [BENCHRUN]            a client that gets less and less of a core: figures and verdict
    scripts/accuracy.py compare RUN_FOLDER TRUTH.jsonl

All but `compare` start `benchrun engine --null`, a server without a model on an exact timetable, and put load on it
with BENCHRUN (target/release/benchrun if absent). The bare loop is benches/bare_client.rs. `speed` gives the server and the
client a core each. `compare` holds the records of a run of `benchrun bench` or `benchrun apply` against the log of any
server on the same host: one line with `monotonic_start_ns`, then one for each request with
`client_id` (the number that the request carried as `x-request-id`, or as its KServe id) and `chunks_ns`, taken right
before each chunk was written. Both clocks are the host's CLOCK_MONOTONIC. A chunk's error is the client's stamp less the
server's; the first chunk's is that of TTFT.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path


PROJECT = Path(__file__).resolve().parent.parent


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


def errors(answers, truth):
    """ms of (client's stamp - server's), of first chunks and of later ones, and how many answers have no match.

    `answers` are (request number, absolute stamps in ns); `truth` is from `read_truth`."""
    start, requests = truth
    by_id = {str(request.get("client_id", request.get("id"))): request["chunks_ns"] for request in requests}
    first, later, lost = [], [], 0
    for number, stamps in answers:
        sent = by_id.get(str(number))
        if sent is None or len(sent) != len(stamps):
            lost += 1
            continue
        late = [(stamp - start - chunk) / 1e6 for stamp, chunk in zip(stamps, sent)]
        first.append(late[0])
        later.extend(late[1:])
    return first, later, lost


def compare(point_folder, truth):
    """As `errors`, of a load point's records."""
    point = json.loads((point_folder / "point.json").read_text())
    origin = point["client"]["began_monotonic_ns"]
    records = read_lines(point_folder / "requests.jsonl")
    begin = origin + min(record["sent_ns"] for record in records)
    end = origin + max(record["end_ns"] for record in records)
    start, requests = truth
    # Load points number their requests alike.
    mine = [request for request in requests if begin <= start + request["arrival_ns"] <= end]
    answers = [
        (record["request"], [origin + chunk for chunk in record["chunk_ns"]])
        for record in records
        if record["kind"] == "measure" and record["status"] == "ok"
    ]
    return point, *errors(answers, (start, mine))


FIGURES = ["TTFT error p50", "p99", "chunk error p50", "p99"]


def figures(first, later):
    return [percentile(values, p) if values else float("nan") for values in (first, later) for p in (50, 99)]


def shown(cell):
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return str(cell)


def show_row(cells):
    print("| " + " | ".join(map(shown, cells)) + " |", flush=True)


def show_head(names):
    show_row(names)
    show_row(["---"] * len(names))


def show_comparison(run, truth_file):
    truth = read_truth(truth_file)
    show_head(["protocol", "point", "requests", "chunks", "not matched", *FIGURES])
    folders = [path.parent for path in run.glob("cells/**/point.json")]
    for folder in sorted(folders, key=lambda folder: json.loads((folder / "point.json").read_text())["order"]):
        point, first, later, lost = compare(folder, truth)
        show_row([point["protocol"], folder.name, len(first), len(first) + len(later), lost, *figures(first, later)])


@contextmanager
def null_server(benchrun, folder, *flags, core=None):
    port_file = folder / "port.json"
    port_file.unlink(missing_ok=True)
    command = [*on_core(core), benchrun, "engine", "--null", "--port", "0", "--port-file", port_file, *flags]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not port_file.exists() or not port_file.read_text():
            time.sleep(0.02)
        yield "http://" + json.loads(port_file.read_text())["address"]
    finally:
        server.terminate()
        server.wait()


def on_core(core):
    return [] if core is None else ["taskset", "--cpu-list", str(core)]


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


def point_of_bench(folder):
    (point,) = (folder / "home/runs/bench/latest").glob("cells/**/point.json")
    return point.parent


def run_bench(benchrun, folder, url, protocol, streams, requests, tokens, core=None):
    command = [*on_core(core), benchrun, "--home", folder / "home", "bench", "-u", url, "-i", protocol, "-m", "ensemble"]
    command += ["--concurrency", str(streams), "--requests", str(requests), "--warmup-requests", "0"]
    command += ["--input-data", folder / "prompts.jsonl", "--max-tokens", str(tokens)]
    return run_with_cost(command)


def write_prompts(folder):
    prompts = "".join(json.dumps({"text_input": f"prompt {n} of some words"}) + "\n" for n in range(1000))
    (folder / "prompts.jsonl").write_text(prompts)


def measure_benchrun(benchrun, folder, url, protocol, streams, requests, tokens):
    cpu_s, _ = run_bench(benchrun, folder, url, protocol, streams, requests, tokens)
    return cpu_s, lambda truth: compare(point_of_bench(folder), truth)[1:]


def build_bare_client():
    command = ["cargo", "bench", "--bench", "bare_client", "--no-run", "--message-format", "json"]
    build = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    messages = map(json.loads, build.stdout.splitlines())
    return next(message["executable"] for message in messages if message.get("executable"))


def run_bare(bare_client, folder, url, protocol, streams, requests, tokens, core=None):
    """CPU seconds, and the answers as lines of JSON."""
    stamps = folder / "stamps.jsonl"
    numbers = map(str, [streams, requests, tokens])
    command = [*on_core(core), bare_client, protocol, url.removeprefix("http://"), *numbers, stamps]
    cpu_s = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return cpu_s, stamps


def read_lines(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def measure_bare(bare_client, folder, url, protocol, streams, requests, tokens):
    cpu_s, stamps = run_bare(bare_client, folder, url, protocol, streams, requests, tokens)
    answers = lambda truth: errors([(answer["request"], answer["chunk_ns"]) for answer in read_lines(stamps)], truth)
    return cpu_s, answers


def measure(benchrun, folder, rounds):
    """Medians over the rounds, of each figure by itself; the clients take turns."""
    clients = {"benchrun": (measure_benchrun, benchrun), "bare loop": (measure_bare, build_bare_client())}
    write_prompts(folder)
    show_head(["protocol", "streams", "client", "chunks", "lost", *FIGURES, "CPU a chunk, us", "stolen, s"])
    for streams, requests, tokens in [(1, 20, 50), (10, 100, 50), (100, 400, 50), (1000, 2000, 200)]:
        # At 1,000 streams a spread of TTFT, or all chunks of all streams would come at the same moments.
        timetable = ["--itl", "20ms", "--ttft", *(["50ms"] if streams < 1000 else ["20ms", "--ttft-spread", "60ms"])]
        for protocol in ["openai", "grpc"]:
            rows = {client: [] for client in clients}
            for client, (run, program) in [*clients.items()] * rounds:
                truth = folder / "truth.jsonl"
                with null_server(benchrun, folder, *timetable, "--truth", truth) as url:
                    stolen_before = stolen()
                    cpu_s, answers = run(program, folder, url, protocol, streams, requests, tokens)
                    stolen_s = stolen() - stolen_before
                first, later, lost = answers(read_truth(truth))
                rows[client].append([lost, *figures(first, later), cpu_s / (requests * tokens) * 1e6, stolen_s])
            for client, seen in rows.items():
                lost, *medians = [statistics.median(column) for column in zip(*seen)]
                show_row([protocol, streams, client, requests * tokens, lost, *medians])


def speed(benchrun, folder, rounds):
    """Chunks a second from the first to the last one, of a server that sends as fast as it can: medians of the rounds."""
    bare_client = build_bare_client()
    write_prompts(folder)
    streams, requests, tokens = 64, 5000, 400
    show_head(["protocol", "benchrun, chunks/s", "bare loop, chunks/s", "ratio"])
    for protocol in ["openai", "grpc"]:
        rates = {"benchrun": [], "bare": []}
        for _ in range(rounds):
            with null_server(benchrun, folder, core=0) as url:
                run_bench(benchrun, folder, url, protocol, streams, requests, tokens, core=1)
            chunks = [record["chunk_ns"] for record in read_lines(point_of_bench(folder) / "requests.jsonl")]
            rates["benchrun"].append(rate(chunks))
            with null_server(benchrun, folder, core=0) as url:
                _, stamps = run_bare(bare_client, folder, url, protocol, streams, requests, tokens, core=1)
            rates["bare"].append(rate([answer["chunk_ns"] for answer in read_lines(stamps)]))
        ours, bare = (statistics.median(seen) for seen in rates.values())
        show_row([protocol, ours, bare, ours / bare])


def rate(answers):
    first = min(chunks[0] for chunks in answers)
    last = max(chunks[-1] for chunks in answers)
    return sum(map(len, answers)) / (last - first) * 1e9


def protocols(benchrun, folder):
    """Medians in ms, of ten streams."""
    write_prompts(folder)
    columns = ["ttft_ms_p50", "tpot_ms_p50", "itl_ms_p50", "e2e_ms_p50"]
    show_head(["protocol", *columns])
    for protocol in ["openai", "openai-chat", "grpc", "http-stream", "http"]:
        with null_server(benchrun, folder, "--ttft", "50ms", "--itl", "20ms") as url:
            run_bench(benchrun, folder, url, protocol, 10, 200, 50)
        (row,) = csv.DictReader((folder / "home/runs/bench/latest/results.csv").read_text().splitlines())
        show_row([protocol, *[f"{float(row[column]):.2f}" if row[column] else "" for column in columns]])


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


STARVE = """
name: starve
models: {{m: {{dummy: {{}}}}}}
engine: {{name: endpoint, settings: {{url: "{url}", served_model: ensemble}}}}
matrix: {{axes: {{precision: [as_served]}}}}
benchmarks:
  load:
    protocol: openai-completions
    data: {{synthetic: {{isl: 16}}}}
    output: {{mode: exact, tokens: 50}}
    concurrency: [8]
    requests: 80
"""


@contextmanager
def busy(core, programs):
    """So many programs that want all of the core."""
    others = [subprocess.Popen(["taskset", "-c", str(core), "sh", "-c", "while :; do :; done"]) for _ in range(programs)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def off(row, point_folder, truth):
    """By which share the reported p99 of TTFT and of ITL are off from what the server did."""
    start, requests = truth
    origin = json.loads((point_folder / "point.json").read_text())["client"]["began_monotonic_ns"]
    with open(point_folder / "requests.jsonl") as lines:
        records = [record for record in map(json.loads, lines) if record["kind"] == "measure"]
    begin, end = origin + min(it["sent_ns"] for it in records), origin + max(it["end_ns"] for it in records)
    mine = [it for it in requests if begin <= start + it["arrival_ns"] <= end]
    ttft = [it["chunks_ns"][0] - it["arrival_ns"] for it in mine]
    itl = [later - chunk for it in mine for chunk, later in zip(it["chunks_ns"], it["chunks_ns"][1:])]
    reported = [(row["ttft_ms_p99"], ttft), (row["itl_ms_p99"], itl)]
    return [abs(float(told) / (percentile(true, 99) / 1e6) - 1) for told, true in reported]


def starve(benchrun, folder):
    """The client shares one core with programs of the same priority as its own, or a higher one."""
    core, manifest, truth_file = min(os.sched_getaffinity(0)), folder / "starve.yaml", folder / "truth.jsonl"
    signs = ["client_poll_delay_ms_p99_9", "client_socket_wait_ms_mean", "client_ttft_ms_p99", "client_itl_ms_p99"]
    show_head(["others on its core", "niceness", "TTFT p99 off by", "ITL p99 off by", "verdict", *signs, "stolen, s"])
    for others, niceness in [(0, 0), (1, 0), (2, 0), (3, 0), (1, 5), (2, 5), (2, 10), (3, 15)]:
        with null_server(benchrun, folder, "--ttft", "100ms", "--itl", "20ms", "--truth", truth_file) as url:
            manifest.write_text(STARVE.format(url=url))
            apply = [benchrun, "--home", folder / "home", "apply", "--rerun", "bench", manifest]
            stolen_before = stolen()
            with busy(core, others):
                run_with_cost(["taskset", "-c", str(core), "nice", "-n", str(niceness), *apply])
            stolen_s = stolen() - stolen_before
        latest = folder / "home/runs/starve/latest"
        with open(latest / "results.csv") as rows:
            (row,) = csv.DictReader(rows)
        (point,) = latest.glob("cells/**/point.json")
        shares = [f"{share:.1%}" for share in off(row, point.parent, read_truth(truth_file))]
        figures = [float(row[sign]) if row[sign] else "" for sign in signs]
        show_row([others, niceness, *shares, row["client_verdict"], *figures, stolen_s])


def main():
    arguments = sys.argv[1:]
    if len(arguments) == 3 and arguments[0] == "compare":
        show_comparison(Path(arguments[1]), arguments[2])
        return
    with_rounds, without = {"measure": measure, "speed": speed}, {"protocols": protocols, "scale": scale, "starve": starve}
    if not arguments or len(arguments) > 3 or arguments[0] not in {**with_rounds, **without}:
        sys.exit(__doc__)
    what, benchrun, rounds = (*arguments, *[PROJECT / "target/release/benchrun", 3][len(arguments) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        if what in with_rounds:
            with_rounds[what](benchrun, Path(folder), int(rounds))
        else:
            without[what](benchrun, Path(folder))


if __name__ == "__main__":
    main()
