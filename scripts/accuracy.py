#!/usr/bin/env python3
"""How exact the load generator's time stamps are: its records held against a server's own log of what it sent when.

    scripts/accuracy.py compare RUN_FOLDER TRUTH.jsonl

RUN_FOLDER is a run of `benchrun bench` or `benchrun apply` on the same host. TRUTH.jsonl is the server's log: one line
with `monotonic_start_ns`, then one for each request with `client_id` (the number that the request carried as
`x-request-id`, or as its KServe id) and `chunks_ns`, taken right before each chunk was written. Both clocks are the
host's CLOCK_MONOTONIC. A chunk's error is the client's stamp less the server's; the first chunk's is that of TTFT.
"""

import json
import sys
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


def main():
    if len(sys.argv) != 4 or sys.argv[1] != "compare":
        sys.exit(__doc__)
    run, (start, truth) = Path(sys.argv[2]), read_truth(sys.argv[3])
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
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
