#!/usr/bin/env python3
"""Holds benchrun's methods against LMDeploy's own scripts: the same requests in the same order, and the same figures.

    scripts/lmdeploy_oracle.py --lmdeploy CLONE --benchrun BINARY --tokenizer FOLDER [--record FOLDER]

CLONE is a git clone of LMDeploy with its tags, FOLDER a model's: `tokenizer.json` and `config.json`. Its scripts of v0.1.0 and v0.16.0 and benchrun ask the same paced server,
one after the other, for the conversations of tests/it/fixtures/lmdeploy/talks.json. `--record` writes the bodies that the
scripts sent: what tests/it/load/methods.rs compares with. Needs numpy, requests, fire, tqdm, aiohttp, pillow and
tokenizers; LMDeploy itself and transformers are replaced by a few lines.
"""

import argparse
import asyncio
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TALKS = ROOT / "tests/it/fixtures/lmdeploy/talks.json"
FIRST_TOKEN_S, NEXT_TOKEN_S = 0.050, 0.010

TOKENIZER = """
import os, tokenizers
class Ids:
    def __init__(self, ids): self.input_ids = ids
class Tokenizer:
    init_kwargs = {}
    def __init__(self, folder): self.inner = tokenizers.Tokenizer.from_file(os.path.join(folder, 'tokenizer.json'))
    @classmethod
    def from_pretrained(cls, folder, **_): return cls(folder)
    def __call__(self, texts): return Ids([it.ids for it in self.inner.encode_batch(texts, add_special_tokens=False)])
    def encode(self, text, add_special_tokens=True):
        return self.inner.encode(text, add_special_tokens=add_special_tokens).ids
"""
TRANSFORMERS = TOKENIZER + """
AutoTokenizer = Tokenizer
AutoProcessor = PreTrainedTokenizer = PreTrainedTokenizerBase = PreTrainedTokenizerFast = object
"""


class Server:
    """An api_server that sends a role at once, the first token after a while and the others evenly."""

    def __init__(self):
        self.bodies = []
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.serve(started)), daemon=True).start()
        started.wait()

    async def serve(self, started):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, backlog=1024)
        self.url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def connection(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                arrived = time.perf_counter()
                lines = head.decode().split("\r\n")
                length = next((int(l.split(":")[1]) for l in lines if l.lower().startswith("content-length")), 0)
                body = await reader.readexactly(length)
                if lines[0].startswith("GET"):
                    answer = b'{"data": [{"id": "tiny"}]}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
                else:
                    self.bodies.append(json.loads(body))
                    await self.answer(writer, lines[0], self.bodies[-1], arrived)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, writer, line, body, arrived):
        chat = "chat" in line
        def event(text, **more):
            choice = {"delta": {"content": text, **more}} if chat else {"text": text}
            return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
        def chunk(data):
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n")
        if chat:
            chunk(event("", role="assistant"))
        for number in range(body["max_tokens"]):
            await asyncio.sleep(arrived + FIRST_TOKEN_S + number * NEXT_TOKEN_S - time.perf_counter())
            chunk(event("a"))
        chunk(b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def taken(self):
        bodies, self.bodies = self.bodies, []
        return bodies


def upstream(clone, tag, folder):
    """The script of a release with what it imports; gives its path."""
    show = lambda path: subprocess.run(["git", "-C", clone, "show", f"{tag}:{path}"], check=True, capture_output=True).stdout
    api = folder / "lmdeploy/serve/openai"
    api.mkdir(parents=True)
    (folder / "lmdeploy/tokenizer.py").write_text(TOKENIZER)
    (folder / "transformers.py").write_text(TRANSFORMERS)
    (folder / "pybase64.py").write_text("")
    (api / "api_client.py").write_bytes(show("lmdeploy/serve/openai/api_client.py"))
    script = folder / "script.py"
    script.write_bytes(show("benchmark/profile_restful_api.py"))
    return script


def run_script(clone, tag, arguments, result):
    with tempfile.TemporaryDirectory() as folder:
        script = upstream(clone, tag, Path(folder))
        subprocess.run([sys.executable, script, *arguments], check=True, cwd=folder, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": folder})
        return last_row(Path(folder) / result)


def last_row(path):
    with open(path, newline="") as file:
        text = file.read()
    assert text.endswith("\r\n"), "lines end as Python's csv module ends them"
    return list(csv.DictReader(text.splitlines()))[-1]


def run_benchrun(options, url, phase, seed):
    manifest = {
        "name": "oracle", "seed": seed, "models": {"tiny": {"path": str(Path(options.tokenizer).resolve())}},
        "engine": {"name": "endpoint", "settings": {"url": url, "served_model": "tiny"}},
        "matrix": {"axes": {"model": ["tiny"]}},
        "benchmarks": {"load": {**phase, "data": {"sharegpt": {"path": str(TALKS)}}}},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "oracle.yaml"
        path.write_text(json.dumps(manifest))
        environment = {**os.environ, "BENCHRUN_HOME": folder}
        subprocess.run([options.benchrun, "apply", path], check=True, env=environment, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        return last_row(next(Path(folder).glob("runs/oracle/latest/cells/tiny/load/lmdeploy.csv")))


def compare(name, theirs, ours, bodies, own_bodies, in_order):
    key = (lambda body: json.dumps(body)) if in_order else (lambda body: json.dumps({**body, "session_id": 0}))
    theirs_sent, ours_sent = [key(body) for body in bodies], [key(body) for body in own_bodies]
    if not in_order:
        theirs_sent.sort(), ours_sent.sort()
    same = "the same requests" + (" in the same order" if in_order else "")
    good = theirs_sent == ours_sent
    print(f"{name}: {len(theirs_sent)} requests, {same if good else 'OTHER REQUESTS'}")
    good &= list(theirs) == list(ours)
    for column, value in theirs.items():
        far = distance(column, value, ours[column])
        good &= far is None
        print(f"  {column:28} {value:>22} {ours[column]:>22}  {far or ''}")
    return good


def distance(column, theirs, ours):
    """What is wrong with a pair of figures: latencies may differ by 1 ms, rates by 2 %."""
    try:
        theirs, ours = float(theirs), float(ours)
    except ValueError:
        return None if theirs == ours else "DIFFERS"
    ms = 1e3 if column.endswith("(s)") else 1
    latency = column.endswith(("(s)", "_ms"))
    apart = abs(theirs - ours) * ms if latency else abs(theirs - ours) / max(abs(theirs), 1e-9) * 50
    return None if apart <= 1.0 or theirs == ours else "TOO FAR"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ["--lmdeploy", "--benchrun", "--tokenizer"]:
        parser.add_argument(option, required=True)
    parser.add_argument("--record")
    options = parser.parse_args()
    options.tokenizer = str(Path(options.tokenizer).resolve())
    server, good, recorded = Server(), True, {}
    for concurrency in [1, 4]:
        arguments = [server.url, options.tokenizer, str(TALKS), "--concurrency", str(concurrency), "--num_prompts", "20",
                     "--stream_output", "True", "--csv", "result.csv"]
        theirs = run_script(options.lmdeploy, "v0.1.0", arguments, "result.csv")
        bodies = server.taken()
        phase = {"method": "lmdeploy-api@v0.1.0", "concurrency": [concurrency], "requests": 20}
        ours = run_benchrun(options, server.url, phase, 0)
        good &= compare(f"v0.1.0, {concurrency} at a time", theirs, ours, bodies, server.taken(), concurrency == 1)
        recorded.setdefault("v0.1.0", bodies)
    for rate in ["20", "inf"]:
        arguments = ["--backend", "lmdeploy", "--base-url", server.url, "--dataset-path", str(TALKS), "--tokenizer",
                     options.tokenizer, "--num-prompts", "20", "--request-rate", rate, "--output-file", "result.csv"]
        theirs = run_script(options.lmdeploy, "v0.16.0", arguments, "result.csv")
        bodies = server.taken()
        phase = {"method": "lmdeploy-api@v0.16.0", "requests": 20}
        if rate != "inf":
            phase["request_rate"] = [float(rate)]
        ours = run_benchrun(options, server.url, phase, 1)
        good &= compare(f"v0.16.0, {rate} a second", theirs, ours, bodies, server.taken(), rate != "inf")
        recorded.setdefault("v0.16.0", bodies)
    if options.record:
        for tag, bodies in recorded.items():
            text = "".join(json.dumps(body, ensure_ascii=False) + "\n" for body in bodies)
            (Path(options.record) / f"{tag}.jsonl").write_text(text)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
