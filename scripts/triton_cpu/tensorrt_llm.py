"""Stand-in for Triton's `tensorrtllm` backend: an in-flight batcher without an engine.

One loop, at most `max_batch_size` sequences under way; every step gives each of them one token: the prompt's own, repeated.
A step takes TRITON_CPU_STEP_MS (10) milliseconds. An answer ends at `request_output_len`; with TRITON_CPU_EOS_AFTER = n above
0, after 1 to n tokens, which the prompt decides, but not before `min_length` or `min_tokens`. With `enable_kv_cache_reuse`, the
whole blocks that a prompt begins with count as reused once another prompt had them.
"""

import collections
import json
import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

BLOCK = 32
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Sequence:
    def __init__(self, request, inputs, exclude_input):
        self.sender = request.get_response_sender()
        length = int(inputs("input_lengths", 0))
        ids = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy().reshape(-1)
        self.prompt = ids[:length].tolist() or [0]
        self.stream = bool(inputs("streaming", False))
        self.echo = [] if inputs("exclude_input_in_output", exclude_input) else self.prompt
        self.wanted = max(1, int(inputs("request_output_len", 1)))
        eos_after = int(os.environ.get("TRITON_CPU_EOS_AFTER", 0))
        if eos_after:
            least = int(inputs("min_tokens", 0) or inputs("min_length", 0))
            self.wanted = min(self.wanted, max(1 + sum(self.prompt) % eos_after, least))
        self.done = 0
        self.returns_metrics = bool(inputs("return_perf_metrics", False))
        self.metrics = {"arrival_time_ns": time.monotonic_ns()}

    def tokens(self, first):
        return [self.prompt[at % len(self.prompt)] for at in range(first, self.done)]


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        engine = os.path.join(parameters["gpt_model_path"], "config.json")
        with open(engine, encoding="utf-8") as file:
            world_size = json.load(file)["pretrained_config"]["mapping"]["world_size"]
        if world_size != 1:
            raise RuntimeError(f"MPI worldSize is expected to be equal to tp*pp, which is {world_size}")
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        self.exclude_input = parameters.get("exclude_input_in_output") == "True"
        self.reuse = parameters.get("enable_kv_cache_reuse") == "True"
        self.known_blocks = set()
        self.batch = max(1, int(config["max_batch_size"]))
        self.step = float(os.environ.get("TRITON_CPU_STEP_MS", 10)) / 1e3
        self.outputs = [
            (output["name"], pb_utils.triton_string_to_numpy(output["data_type"]), len(output["dims"]) + 1)
            for output in config["output"]
            if output["name"] not in ("output_ids", "sequence_length")
        ]
        self.waiting, self.condition, self.stopped = collections.deque(), threading.Condition(), False
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def execute(self, requests):
        for request in requests:

            def inputs(name, default, request=request):
                tensor = pb_utils.get_input_tensor_by_name(request, name)
                return default if tensor is None else tensor.as_numpy().reshape(-1)[0]

            if inputs("stop", False):
                # What it would end has ended: llm_perf.py asks for it behind each answer.
                request.get_response_sender().send(flags=FINAL)
                continue
            sequence = Sequence(request, inputs, self.exclude_input)
            if sequence.stream and not self.decoupled:
                error = pb_utils.TritonError("Streaming is only supported if model is deployed using decoupled mode.")
                sequence.sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)
                continue
            with self.condition:
                self.waiting.append(sequence)
                self.condition.notify()

    def loop(self):
        running = []
        while True:
            with self.condition:
                while not (self.waiting or running or self.stopped):
                    self.condition.wait()
                    due = time.monotonic()
                if self.stopped:
                    return
                while self.waiting and len(running) < self.batch:
                    running.append(self.waiting.popleft())
                    self.schedule(running[-1])
            due = max(due + self.step, time.monotonic() - self.step)
            time.sleep(max(0.0, due - time.monotonic()))
            running = [sequence for sequence in running if self.advance(sequence)]

    def schedule(self, sequence):
        # A block counts with all that is before it. The last token is always computed.
        blocks = [tuple(sequence.prompt[:end]) for end in range(BLOCK, len(sequence.prompt), BLOCK)]
        sequence.metrics["first_scheduled_time_ns"] = time.monotonic_ns()
        sequence.metrics["kv_cache_reused_blocks"] = sum(block in self.known_blocks for block in blocks)
        if self.reuse:
            self.known_blocks.update(blocks)

    def advance(self, sequence):
        """Gives a sequence its next token; whether it goes on."""
        if sequence.sender.is_cancelled():
            sequence.sender.send(flags=FINAL)
            return False
        sequence.done += 1
        sequence.metrics.setdefault("first_token_time_ns", time.monotonic_ns())
        last = sequence.done >= sequence.wanted
        if sequence.stream:
            tokens = sequence.tokens(sequence.done - 1)
            sequence.sender.send(self.response(sequence, tokens), flags=FINAL if last else 0)
        elif last:
            sequence.sender.send(self.response(sequence, sequence.echo + sequence.tokens(0)), flags=FINAL)
        return not last

    def response(self, sequence, tokens):
        """The tokens, what is known of the sequence, and a zero for every other output."""
        counts = {"num_input_tokens": len(sequence.prompt), "num_output_tokens": sequence.done}
        if sequence.returns_metrics:
            counts.update(sequence.metrics)
        tensors = [
            pb_utils.Tensor("output_ids", np.array([[tokens]], np.int32)),
            pb_utils.Tensor("sequence_length", np.array([[len(tokens)]], np.int32)),
        ]
        tensors += [pb_utils.Tensor(n, np.full([1] * rank, counts.get(n, 0), kind)) for n, kind, rank in self.outputs]
        return pb_utils.InferenceResponse(tensors)

    def finalize(self):
        with self.condition:
            self.stopped = True
            self.condition.notify()
        self.thread.join(2)
