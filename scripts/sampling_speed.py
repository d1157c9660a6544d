#!/usr/bin/env python3
"""Holds the time that benchrun takes to choose requests out of a ShareGPT file against that of LMDeploy's own script.

    scripts/sampling_speed.py --tokenizer FOLDER [--benchrun BINARY] [--work FOLDER] [--conversations 92812]

Makes a file as large as ShareGPT V3, the same every time: 92,812 conversations in 640 MB, text and code of Python's own
library with words that occur once and some Chinese among them. Then `sample_requests` of `profile_restful_api.py` v0.1.0,
copied below, chooses 2000 requests of it, and `benchrun bench lmdeploy-api` does so twice, the second time with what the
first one counted. Both must choose the same. Needs transformers.
"""

import argparse
import http.server
import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUESTS = 2000


def corpus():
    """Text of the standard library, as a list of words with the space before them."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py"))
    text = "".join(file.read_text(encoding="utf-8", errors="ignore") for file in files if "site-packages" not in str(file))
    return text


def make(path, conversations):
    text, draw = corpus(), random.Random(0)

    def said(median, spread):
        length = max(1, min(int(draw.lognormvariate(median, spread)), 60_000))
        if draw.random() < 0.04:
            return "".join(chr(draw.randrange(0x4E00, 0x5800)) for _ in range(length // 3 + 1))
        start = draw.randrange(len(text) - length)
        words = text[start:start + length].split(" ")
        for _ in range(len(words) // 50):
            words[draw.randrange(len(words))] = "%x" % draw.getrandbits(28)
        return " ".join(words)

    with open(path, "w", encoding="utf-8") as file:
        for number in range(conversations):
            turns = 2 * max(1, min(int(draw.expovariate(1 / 2.85) + 0.5), 40))
            talk = [{"from": ("human", "gpt")[turn % 2], "value": said(*((5.2, 1.5), (6.9, 0.9))[turn % 2])}
                    for turn in range(turns)]
            file.write("[" if number == 0 else ", ")
            json.dump({"id": "%07x_0" % number, "conversations": talk}, file, ensure_ascii=draw.random() < 0.5)
        file.write("]")


def sample_requests(dataset_path, num_requests, tokenizer):
    """As in `profile_restful_api.py` v0.1.0."""
    with open(dataset_path) as f:
        dataset = json.load(f)
    dataset = [data for data in dataset if len(data["conversations"]) >= 2]
    dataset = [(data["conversations"][0]["value"], data["conversations"][1]["value"]) for data in dataset]
    prompts = [prompt for prompt, _ in dataset]
    prompt_token_ids = tokenizer(prompts).input_ids
    completions = [completion for _, completion in dataset]
    completion_token_ids = tokenizer(completions).input_ids
    tokenized_dataset = []
    for i in range(len(dataset)):
        output_len = len(completion_token_ids[i])
        tokenized_dataset.append((prompts[i], prompt_token_ids[i], output_len))
    filtered_dataset = []
    for prompt, prompt_token_ids, output_len in tokenized_dataset:
        prompt_len = len(prompt_token_ids)
        if prompt_len < 4 or output_len < 4:
            continue
        if prompt_len > 1024 or prompt_len + output_len > 2048:
            continue
        filtered_dataset.append((prompt, prompt_len, output_len))
    return random.sample(filtered_dataset, num_requests)


def of_python(options):
    """Runs in a process of its own: prints seconds, peak memory and the lengths chosen."""
    from transformers import PreTrainedTokenizerFast
    # `AutoTokenizer` gives the same, but that of today makes another tokenizer for Llama 2 than `tokenizer.json` says.
    model = PreTrainedTokenizerFast(tokenizer_file=os.path.join(options.tokenizer, "tokenizer.json"))
    # `lmdeploy.tokenizer.HuggingFaceTokenizer.__call__`
    tokenizer = lambda texts: model(texts, add_special_tokens=False)
    random.seed(0)
    began = time.perf_counter()
    chosen = sample_requests(options.file, REQUESTS, tokenizer)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, peak, [[prompt, output] for prompt, _, output in chosen]]))


class Server(http.server.ThreadingHTTPServer):
    """Takes down what is asked, and when the first request came."""

    daemon_threads = True
    first, asked = None, []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"data": [{"id": "model"}]})

    def do_POST(self):
        self.server.first = self.server.first or time.perf_counter()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append([body["messages"], body["max_tokens"]])
        self.answer({"choices": [{"message": {"role": "assistant", "content": "a"}, "finish_reason": "length"}]})

    def answer(self, answer):
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def of_benchrun(options, home):
    """Seconds from the start of the program to its first request, its peak memory and the lengths chosen."""
    server = Server(("127.0.0.1", 0), Handler)
    server.first, server.asked = None, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = "http://127.0.0.1:%d" % server.server_port
    command = [options.benchrun, "--home", home, "bench", "lmdeploy-api", url, options.tokenizer, options.file,
               "--concurrency", "1", "--num-prompts", str(REQUESTS), "--csv", os.path.join(home, "out.csv")]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    server.shutdown()
    assert status == 0, f"benchrun ended with {status}"
    return server.first - began, used.ru_maxrss, server.asked


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--benchrun", default=str(ROOT / "target/release/benchrun"))
    parser.add_argument("--work", default=tempfile.gettempdir())
    parser.add_argument("--conversations", type=int, default=92_812)
    parser.add_argument("--file", help="an own ShareGPT file in place of the made one")
    parser.add_argument("--python-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.python_only:
        return of_python(options)
    if not options.file:
        options.file = os.path.join(options.work, f"sharegpt-{options.conversations}.json")
        if not os.path.exists(options.file):
            make(options.file, options.conversations)
    print(f"{options.file}: {os.path.getsize(options.file) / 1e6:.0f} MB, {os.cpu_count()} cores")
    command = [sys.executable, __file__, "--python-only", "--tokenizer", options.tokenizer, "--file", options.file]
    theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    show("the script", theirs, theirs)
    good = True
    with tempfile.TemporaryDirectory() as home:
        for name in ["benchrun", "benchrun, again"]:
            ours = of_benchrun(options, home)
            show(name, ours, theirs)
            good &= ours[2] == theirs[2]
    print("the same requests" if good else "OTHER REQUESTS")
    sys.exit(0 if good else 1)


def show(name, measured, theirs):
    print(f"{name:16} {measured[0]:7.1f} s  {measured[1] / 1024:6.0f} MiB  {theirs[0] / measured[0]:6.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
