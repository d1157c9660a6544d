#!/usr/bin/env python3
"""benchrun beside NVIDIA's own tools on a Triton server that is up: the same prompts, the figures next to each other.

    scripts/beside_genai_perf.py parse --genai-perf VENV --tokenizer DIR [--results FILE] EXPORT
    scripts/beside_genai_perf.py run --genai-perf VENV --tokenizer DIR --prompts FILE [--url HOST:PORT] [--benchrun PROGRAM]
                                     [--output-tokens N] [--concurrency N] [--requests N] [--interval-ms N] [--rounds N] [--llm-perf FILE]

`parse` lets GenAI-Perf's own parser compute its figures from a profile export of `benchrun bench`, and holds them against
benchrun's results of the same requests (`results.json` of the latest run, if nothing else is said): exit status 1 if one
differs by more than 0.01 %, times by more than GenAI-Perf's rounding to nanoseconds.

`run` measures: the guide's genai-perf command and `benchrun bench --exact` with the same output length; with --llm-perf
also the guide's llm_perf.py and `benchrun bench` without --exact, where answers end as the model ends them. VENV has
genai-perf 0.0.8 or 0.0.16, and for llm_perf.py `tritonclient[all] pandas tabulate pydantic` as well; perf_analyzer must be
on its PATH.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Ours, GenAI-Perf's name, and which of its statistics.
FIGURES = [
    ("input_tokens_mean", "input_sequence_length", "avg"),
    ("output_tokens_mean", "output_sequence_length", "avg"),
    ("ttft_ms_mean", "time_to_first_token", "avg"),
    ("ttft_ms_p50", "time_to_first_token", "p50"),
    ("ttft_ms_p99", "time_to_first_token", "p99"),
    ("tpot_ms_mean", "inter_token_latency", "avg"),
    ("tpot_ms_p50", "inter_token_latency", "p50"),
    ("tpot_ms_p99", "inter_token_latency", "p99"),
    ("e2e_ms_mean", "request_latency", "avg"),
    ("e2e_ms_p50", "request_latency", "p50"),
    ("e2e_ms_p99", "request_latency", "p99"),
    ("output_tokens_per_s", "output_token_throughput", "avg"),
    ("requests_per_s", "request_throughput", "avg"),
]

# GenAI-Perf tokenizes the text again; where the server has counted, benchrun takes its count.
OF_THE_OUTPUT = {"output_tokens_mean", "tpot_ms_mean", "tpot_ms_p50", "tpot_ms_p99", "output_tokens_per_s"}
OF_THE_COUNT = {"server_tensor": OF_THE_OUTPUT, "server_usage": OF_THE_OUTPUT | {"input_tokens_mean"}}

# What llm_perf.py asks for, at most.
LLM_PERF_TOKENS = "300"

# Runs in GenAI-Perf's own Python: its parser, its tokenizer, its statistics. Both versions are spoken to.
PARSER = """
import json, sys
from pathlib import Path
from genai_perf.profile_data_parser import LLMProfileDataParser
from genai_perf.tokenizer import Tokenizer
export, folder, said = sys.argv[1:]
tokenizer = Tokenizer()
tokenizer.set_tokenizer(folder, False, "main")
parser = LLMProfileDataParser(Path(export), tokenizer)
figures = {}
for mode, level in parser.get_profile_load_info():
    statistics = parser.get_statistics(mode, level)
    statistics.scale_data()
    figures[level] = statistics.stats_dict
json.dump(figures, open(said, "w"))
"""


def genai_perf_reads(venv, tokenizer, export):
    """GenAI-Perf's figures by concurrency."""
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "said.json"
        python = [str(Path(venv) / "bin/python"), "-c", PARSER, str(export), bare(tokenizer, place), str(said)]
        subprocess.run(python, check=True, env=offline(venv), stdout=sys.stderr)
        return json.load(open(said))


def bare(tokenizer, place):
    """A copy of the tokenizer without the model's config.json: beside one of Qwen2, transformers 5 splits numbers as Qwen2
    does, whatever tokenizer.json says, and counts other tokens than the server and benchrun, which go by tokenizer.json."""
    folder = Path(place) / "tokenizer"
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tokenizer) / file, folder)
    return f"{folder}/"


def offline(venv):
    path = f"{Path(venv).resolve()}/bin:{os.environ['PATH']}"
    return os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PATH": path}


def results(file):
    """benchrun's figures by concurrency."""
    return {str(row["concurrency"]): row for row in json.load(open(file))["rows"]}


def share(mine, other):
    return (mine - other) / other if other else float(mine != other)


def table(columns, rows):
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def parse(arguments):
    ours, theirs = results(arguments.results), genai_perf_reads(arguments.genai_perf, arguments.tokenizer, arguments.export)
    rows, wrong = [], 0
    for concurrency, row in ours.items():
        for name, figure, statistic in FIGURES:
            if row[name] is None:
                continue  # Unknown to benchrun where nothing streams; GenAI-Perf takes the end for the first token.
            mine, other = row[name], theirs[concurrency][figure][statistic]
            agrees = abs(share(mine, other)) < 1e-4 or abs(mine - other) < 1e-6
            counted = name in OF_THE_COUNT.get(row["output_tokens_source"], ())
            wrong += not agrees and not counted
            verdict = "yes" if agrees else f"no: {row['output_tokens_source']}" if counted else "NO"
            rows.append([concurrency, name, f"{mine:.6f}", f"{other:.6f}", verdict])
    table(["concurrency", "figure", "benchrun", "GenAI-Perf of the same requests", "equal"], rows)
    return 1 if wrong else 0


def bench(arguments, prompts, folder, more):
    home = folder / "home"
    command = [arguments.benchrun, "--home", home, "bench", "-u", arguments.url, "-i", "grpc", "-m", "ensemble"]
    command += ["--concurrency", arguments.concurrency, "--tokenizer-path", arguments.tokenizer, "--input-data", prompts]
    command += more
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    return results(home / "runs/bench/latest/results.json")[arguments.concurrency]


def genai_perf(arguments, first, prompts, folder):
    """The guide's command; version 0.0.16 has other names for two of its flags, and measures a number of requests."""
    program = Path(arguments.genai_perf) / "bin/genai-perf"
    kind = ["--service-kind", "triton"] if first else ["--endpoint-type", "kserve"]
    length = ["--output-tokens-mean", arguments.output_tokens, "--output-tokens-stddev", "0"]
    command = [program, "profile", "-m", "ensemble", *kind, "--backend", "tensorrtllm", "--input-file", prompts, "--streaming"]
    command += [*length, *(["--output-tokens-mean-deterministic"] if first else []), "--tokenizer", arguments.bare_tokenizer]
    command += ["--concurrency", arguments.concurrency, "--profile-export-file", "export.json", "--url", arguments.url]
    command += ["--measurement-interval", arguments.interval_ms] if first else ["--request-count", arguments.requests]
    command += ["--artifact-dir", folder / "artifacts"]
    subprocess.run([str(word) for word in command], check=True, env=offline(arguments.genai_perf), cwd=folder, stdout=sys.stderr)
    return json.load(open(next(folder.rglob("export_genai_perf.json"))))


def version_of_genai_perf(venv):
    python = [str(Path(venv) / "bin/python"), "-c", "from importlib.metadata import version; print(version('genai-perf'))"]
    return subprocess.run(python, check=True, capture_output=True, text=True).stdout.strip()


def llm_perf(arguments, prompts, folder):
    """llm_perf.py as it stands."""
    python = str(Path(arguments.genai_perf) / "bin/python")
    command = [python, arguments.llm_perf, "-u", arguments.url, "-i", "grpc", "-m", "ensemble", "--concurrency", arguments.concurrency]
    command += ["--tokenizer-path", arguments.bare_tokenizer, "--input-data", str(prompts), "--measurement-interval", "0"]
    command += ["--profile-export-file", str(folder / "llm_perf.json")]
    subprocess.run(command, check=True, env=offline(arguments.genai_perf), stdout=sys.stderr)
    said = json.load(open(folder / "llm_perf.json"))[arguments.concurrency]
    requests = said["perf_results"]
    mean_of = lambda name, scale: sum(request[name] for request in requests) / len(requests) * scale
    return {
        "input_tokens_mean": mean_of("input_tokens", 1),
        "output_tokens_mean": mean_of("output_tokens", 1),
        "ttft_ms_mean": mean_of("ttft", 1e3),
        "tpot_ms_mean": mean_of("TPOT", 1e3),
        "e2e_ms_mean": mean_of("e2e_latency", 1e3),
        "output_tokens_per_s": said["total_output_tps_in_system"],
        "requests_per_s": said["request_per_sec"],
    }


def mean(rounds):
    """The mean over the rounds of each figure that all of them have."""
    return {name: sum(said[name] for said in rounds) / len(rounds) for name in rounds[0] if rounds[0][name] is not None}


def beside(name, ours, other_name, theirs):
    """A row for each figure that both tools have."""
    print(f"\n{name}\n")
    ours, theirs = mean([{figure: said[figure] for figure in theirs[0]} for said in ours]), mean(theirs)
    rows = [
        [figure, f"{ours[figure]:.3f}", f"{theirs[figure]:.3f}", f"{share(ours[figure], theirs[figure]):+.2%}"]
        for figure in theirs
        if figure in ours and not figure.endswith("p99")
    ]
    table(["figure", "benchrun", other_name, "difference"], rows)


def run(arguments):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        texts = [json.loads(line)["text_input"] for line in open(arguments.prompts) if line.strip()]
        # GenAI-Perf 0.0.8 and llm_perf.py read `text_input`, 0.0.16 reads `text`.
        prompts, newer = folder / "prompts.jsonl", folder / "newer.jsonl"
        prompts.write_text("".join(json.dumps({"text_input": text}) + "\n" for text in texts))
        newer.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        arguments.genai_perf = str(Path(arguments.genai_perf).resolve())
        arguments.bare_tokenizer = bare(arguments.tokenizer, folder)
        version = version_of_genai_perf(arguments.genai_perf)
        fixed, ended = ([], []), ([], [])
        fixed_length = ["--exact", "--max-tokens", arguments.output_tokens, "--requests", arguments.requests]
        # In turns, so that a machine that gets slower does so for all.
        for _ in range(arguments.rounds):
            fixed[0].append(bench(arguments, prompts, folder, fixed_length))
            said = genai_perf(arguments, version == "0.0.8", prompts if version == "0.0.8" else newer, folder)
            fixed[1].append({ours: said[figure][statistic] for ours, figure, statistic in FIGURES})
            if arguments.llm_perf:
                ended[0].append(bench(arguments, prompts, folder, ["--max-tokens", LLM_PERF_TOKENS, "--requests", str(len(texts))]))
                ended[1].append(llm_perf(arguments, prompts, folder))
        concurrency = f"concurrency {arguments.concurrency}, mean of {arguments.rounds} rounds"
        beside(f"{arguments.output_tokens} output tokens, {concurrency}", fixed[0], f"genai-perf {version}", fixed[1])
        if arguments.llm_perf:
            beside(f"until the model ends, {concurrency}", ended[0], "llm_perf.py", ended[1])
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    parsing, running = commands.add_parser("parse"), commands.add_parser("run")
    for command, function in ((parsing, parse), (running, run)):
        command.set_defaults(function=function)
        command.add_argument("--genai-perf", required=True, metavar="VENV")
        command.add_argument("--tokenizer", required=True, metavar="DIR")
    parsing.add_argument("export")
    parsing.add_argument("--results", default=".benchrun/runs/bench/latest/results.json")
    running.add_argument("--prompts", required=True, metavar="FILE")
    running.add_argument("--url", default="127.0.0.1:8001")
    running.add_argument("--benchrun", default="benchrun", metavar="PROGRAM")
    running.add_argument("--output-tokens", default="300")
    running.add_argument("--concurrency", default="1")
    running.add_argument("--requests", default="50")
    running.add_argument("--interval-ms", default="10000")
    running.add_argument("--rounds", type=int, default=2)
    running.add_argument("--llm-perf", metavar="FILE")
    arguments = parser.parse_args()
    sys.exit(arguments.function(arguments))


if __name__ == "__main__":
    main()
