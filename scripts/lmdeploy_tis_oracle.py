#!/usr/bin/env python3
"""Holds benchrun's method `lmdeploy-tis` against LMDeploy's own script: the same calls, and figures beside each other.

    scripts/lmdeploy_tis_oracle.py --lmdeploy CLONE --benchrun BINARY --tokenizer FOLDER [--record FILE]

CLONE is a git clone of LMDeploy with its tags. Its `profile_serving.py` and `Chatbot` of v0.1.0 and benchrun ask, one after
the other, a Triton server that keeps what it is asked, for the conversations of tests/it/fixtures/lmdeploy/talks.json; then
`benchrun engine --null`, for the figures. `--record` writes the calls of the script: what tests/it/load/lmdeploy.rs compares
with. Needs tritonclient[grpc], mmengine-lite, fire, numpy, tqdm and tokenizers; LMDeploy's tokenizer is replaced by a few lines.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy
from tritonclient.grpc import service_pb2 as messages, service_pb2_grpc as service

from lmdeploy_oracle import TALKS, TOKENIZER, last_row

OF_LMDEPLOY = ["model.py", "utils.py", "serve/turbomind/chatbot.py", "serve/turbomind/utils.py"]
TYPES = {"UINT32": numpy.uint32, "INT32": numpy.int32, "UINT64": numpy.uint64, "FP32": numpy.float32}


class Server(service.GRPCInferenceServiceServicer):
    """LMDeploy's three models: an id for each word, answers of id 7, and a word for each id."""

    def __init__(self):
        self.lock, self.calls, self.configs, self.peers = threading.Lock(), [], 0, set()
        server = grpc.server(futures.ThreadPoolExecutor(64))
        service.add_GRPCInferenceServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.server = server

    def ModelConfig(self, request, context):
        with self.lock:
            self.configs += 1
        answer = messages.ModelConfigResponse()
        answer.config.parameters["model_name"].string_value = "internlm"
        return answer

    def ModelInfer(self, request, context):
        inputs = self.keep(request, context)
        if request.model_name == "postprocessing":
            return response(OUTPUT=[b" null" * (len(inputs["TOKENS_BATCH"]) - inputs["sequence_length"][0])])
        text = inputs["QUERY"][0]
        ids = {"<BOS>": [1], "<EOS>": [2]}.get(text) or [1] + list(range(10, 10 + len(text.split())))
        return response(INPUT_ID=ids, REQUEST_INPUT_LEN=[len(ids)])

    def ModelStreamInfer(self, requests, context):
        for request in requests:
            inputs = self.keep(request, context)
            prompt, tokens = inputs["input_ids"], inputs["request_output_len"][0]
            for number in range(1, tokens + 1):
                time.sleep(0.002)
                so_far = response(output_ids=prompt + [7] * tokens, sequence_length=[len(prompt) + number])
                yield messages.ModelStreamInferResponse(infer_response=so_far)

    def keep(self, request, context):
        call = {"model": request.model_name, "parameters": {}, "inputs": []}
        for name, parameter in request.parameters.items():
            call["parameters"][name] = getattr(parameter, parameter.WhichOneof("parameter_choice"))
        for tensor, raw in zip(request.inputs, request.raw_input_contents):
            of_text = tensor.datatype == "BYTES"
            values = [raw[4:].decode()] if of_text else numpy.frombuffer(raw, TYPES[tensor.datatype]).tolist()
            call["inputs"].append([tensor.name, tensor.datatype, list(tensor.shape), values])
        call["parameters"] = dict(sorted(call["parameters"].items()))
        with self.lock:
            self.calls.append(call)
            self.peers.add(context.peer())
        return {name: values for name, _, _, values in call["inputs"]}

    def taken(self):
        """All calls but those of each thread's start, and how many of each kind there were."""
        with self.lock:
            calls, counts = self.calls, {"ModelConfig": self.configs, "connections": len(self.peers)}
            self.calls, self.configs, self.peers = [], 0, set()
        for call in calls:
            counts[call["model"]] = counts.get(call["model"], 0) + 1
        return [without_seed(call) for call in calls if call["inputs"][0][3] not in (["<BOS>"], ["<EOS>"])], counts


def response(**outputs):
    answer = messages.ModelInferResponse()
    for name, values in outputs.items():
        of_text = isinstance(values[0], bytes)
        raw = len(values[0]).to_bytes(4, "little") + values[0] if of_text else numpy.array(values, numpy.uint32).tobytes()
        answer.outputs.add(name=name, datatype="BYTES" if of_text else "UINT32", shape=[1] if of_text else [1, len(values)])
        answer.raw_output_contents.append(raw)
    return answer


def without_seed(call):
    """A random seed is another each time."""
    for tensor in call["inputs"]:
        if tensor[0] == "random_seed":
            tensor[3] = [0]
    return call


def without_session(call):
    inputs = [tensor for tensor in call["inputs"] if tensor[0] != "CORRID"]
    return json.dumps([call["model"], inputs])


def sessions(calls):
    """The session and the parameters that go with it."""
    corrid = lambda call: [tensor[3] for tensor in call["inputs"] if tensor[0] == "CORRID"]
    return {json.dumps([corrid(call), call["parameters"]]) for call in calls if call["model"] == "turbomind"}


def run_script(options, arguments):
    show = lambda path: subprocess.run(["git", "-C", options.lmdeploy, "show", f"v0.1.0:{path}"], check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "lmdeploy"
        (package / "serve/turbomind").mkdir(parents=True)
        (package / "tokenizer.py").write_text(TOKENIZER)
        for path in OF_LMDEPLOY:
            (package / path).write_bytes(show(f"lmdeploy/{path}"))
        (Path(folder) / "script.py").write_bytes(show("benchmark/profile_serving.py"))
        return run([sys.executable, "script.py", *arguments], folder, {"PYTHONPATH": folder})


def run_benchrun(options, arguments):
    with tempfile.TemporaryDirectory() as folder:
        return run([options.benchrun, "bench", "lmdeploy-tis", *arguments], folder, {"BENCHRUN_HOME": folder})


def run(command, folder, environment):
    ended = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{command} failed:\n{ended.stderr[-2000:]}")
    return last_row(Path(folder) / "result.csv")


def compare_calls(options, server, concurrency, arguments):
    run_script(options, [server.address, *arguments])
    theirs, their_counts = server.taken()
    run_benchrun(options, [server.address, *arguments])
    ours, our_counts = server.taken()
    good = theirs == ours if concurrency == 1 else sorted(map(without_session, theirs)) == sorted(map(without_session, ours))
    good &= sessions(theirs) == sessions(ours)
    order = " in the same order" if concurrency == 1 else ""
    print(f"{concurrency} at a time: {len(theirs)} calls, {'the same' + order if good else 'OTHER CALLS'}")
    print(f"  the script {their_counts}\n  benchrun   {our_counts}")
    return good, theirs


def compare_figures(options, concurrency, arguments):
    """The script's client is Python, and waits for itself; so its latencies are longer, and its rates are lower."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "port.json"
        paced = ["--ttft", "500ms", "--itl", "100ms", "--port", "0", "--port-file", place]
        with subprocess.Popen([options.benchrun, "engine", "--null", *paced], stderr=subprocess.DEVNULL) as server:
            while not place.exists():
                time.sleep(0.01)
            address = json.loads(place.read_text())["address"]
            theirs, ours = run_script(options, [address, *arguments]), run_benchrun(options, [address, *arguments])
            server.terminate()
    good = list(theirs) == list(ours)
    print(f"figures, {concurrency} at a time:")
    for column, value in theirs.items():
        more = (float(value) - float(ours[column])) / float(value)
        near = abs(more) < 0.1
        good &= near
        print(f"  {column:28} {value:>12} {ours[column]:>12}  {more:+.1%}{'' if near else '  TOO FAR'}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ["--lmdeploy", "--benchrun", "--tokenizer"]:
        parser.add_argument(option, required=True)
    parser.add_argument("--record")
    options = parser.parse_args()
    options.benchrun, tokenizer = str(Path(options.benchrun).resolve()), str(Path(options.tokenizer).resolve())
    server, results = Server(), []
    for concurrency in [1, 3]:
        arguments = [tokenizer, str(TALKS), "--concurrency", str(concurrency), "--csv", "result.csv", "--num_prompts"]
        good, calls = compare_calls(options, server, concurrency, [*arguments, "9"])
        results += [good, compare_figures(options, concurrency, [*arguments, "9"])]
        if options.record and concurrency == 1:
            Path(options.record).write_text("".join(json.dumps(call, ensure_ascii=False) + "\n" for call in calls))
    server.server.stop(None)
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
