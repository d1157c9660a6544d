#!/usr/bin/env python3
"""Calls an engine in its own process and takes the times there: benchrun's protocol `in-process`.

    engine_driver.py LIBRARY MODEL --host H --port P [NAME=VALUE ...]

loads MODEL with LIBRARY (llamacpp, vllm, lmdeploy or tensorrt-llm) and with NAME=VALUE as the library's own arguments,
VALUE being JSON or else plain text; then it listens. GET of any path says 200. POST /generate takes the body of OpenAI's
/v1/completions and gives, when the engine has ended,

    {"start_ns": 1, "ticks": [[2, "a"], [3, " b"]], "end_ns": 3, "input_tokens": 5, "output_tokens": 2, "finish_reason": "length"}

with nanoseconds of CLOCK_MONOTONIC: before the engine is called, each time that it gives tokens, and at its end. Nothing
is written to a socket meanwhile. Needs Python 3.8 and the library, nothing else.
"""

import argparse
import asyncio
import functools
import itertools
import json
import pathlib
import re
import time
import traceback
from concurrent.futures import ThreadPoolExecutor


class Answer:
    """What an engine gives for one request, and when."""

    def __init__(self):
        self.ticks = []
        self.facts = {}
        self.given_up = False
        self.start_ns = time.monotonic_ns()

    def tick(self, text):
        """The engine has just given tokens; their text may be empty inside a character."""
        self.ticks.append((time.monotonic_ns(), text))

    def ends(self, input_tokens, output_tokens, finish_reason):
        self.facts = {"input_tokens": input_tokens, "output_tokens": output_tokens, "finish_reason": finish_reason}

    def report(self):
        return {"start_ns": self.start_ns, "ticks": self.ticks, "end_ns": time.monotonic_ns(), **self.facts}


class LlamaCpp:
    """xllamacpp: llama.cpp's server code as an object, called without HTTP. Dots in a name go into its parameters."""

    def __init__(self, model, arguments):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = model
        for name, value in arguments.items():
            *owners, last = name.split(".")
            setattr(functools.reduce(getattr, owners, params), last, value)
        self.server = xllamacpp.Server(params)
        self.threads = ThreadPoolExecutor(max_workers=4096)

    async def generate(self, request, answer):
        await asyncio.get_running_loop().run_in_executor(self.threads, self.complete, request, answer)

    def complete(self, request, answer):
        chunks = []

        def on_chunk(chunk):
            # In the order of their times, and nothing is looked into before the end.
            chunks.append((time.monotonic_ns(), chunk))
            return answer.given_up

        answer.start_ns = time.monotonic_ns()
        self.server.handle_completions(json.dumps(request), on_chunk)
        for at_ns, chunk in chunks:
            chunk = json.loads(chunk)
            if "error" in chunk:
                raise ValueError(chunk["error"].get("message", chunk["error"]))
            choice = chunk["choices"][0]
            if choice["text"]:
                answer.ticks.append((at_ns, choice["text"]))
            if choice["finish_reason"]:
                usage = chunk["usage"]
                answer.ends(usage["prompt_tokens"], usage["completion_tokens"], choice["finish_reason"])


class Vllm:
    """vLLM's AsyncLLM, which its own server calls as well. The model computes in another process of vLLM."""

    def __init__(self, model, arguments):
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **arguments))
        self.numbers = itertools.count()

    async def generate(self, request, answer):
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(output_kind=RequestOutputKind.DELTA, **pick(request, SAMPLING))
        tokens = 0
        answer.start_ns = time.monotonic_ns()
        async for output in self.engine.generate(prompt_of(request), params, str(next(self.numbers))):
            new = output.outputs[0]
            if new.token_ids:
                answer.tick(new.text)
            tokens += len(new.token_ids)
        answer.ends(len(output.prompt_token_ids), tokens, new.finish_reason)


class TensorRtLlm:
    """The LLM API of TensorRT-LLM."""

    def __init__(self, model, arguments):
        from tensorrt_llm import LLM

        self.engine = LLM(model=model, **arguments)

    async def generate(self, request, answer):
        from tensorrt_llm import SamplingParams

        params = SamplingParams(**pick(request, SAMPLING))
        answer.start_ns = time.monotonic_ns()
        output = self.engine.generate_async(prompt_of(request), params, streaming=True)
        try:
            async for _ in output:
                new = output.outputs[0]
                if new.token_ids_diff:
                    answer.tick(new.text_diff)
        except asyncio.CancelledError:
            output.abort()
            raise
        answer.ends(len(output.prompt_token_ids), len(new.token_ids), new.finish_reason)


class Lmdeploy:
    """LMDeploy's engines as its profile_throughput.py calls them, texts included. `backend` is turbomind or pytorch."""

    def __init__(self, model, arguments):
        import lmdeploy
        from lmdeploy.tokenizer import Tokenizer

        if arguments.pop("backend") == "turbomind":
            from lmdeploy.turbomind import TurboMind as Engine

            config = lmdeploy.TurbomindEngineConfig(**arguments)
        else:
            from lmdeploy.pytorch.engine import Engine

            config = lmdeploy.PytorchEngineConfig(**arguments)
        self.engine = Engine.from_pretrained(model, engine_config=config)
        if hasattr(self.engine, "start_loop"):
            self.engine.start_loop()
        self.tokenizer = Tokenizer(model)
        self.ends = ends_of(model)
        self.idle = []
        self.sessions = itertools.count(1)

    async def generate(self, request, answer):
        from lmdeploy.messages import GenerationConfig, ResponseType
        from lmdeploy.tokenizer import DetokenizeState

        ends = [] if request.get("ignore_eos") else self.ends
        config = GenerationConfig(
            max_new_tokens=request["max_tokens"],
            do_sample=request.get("temperature", 0) > 0,
            ignore_eos=not ends,
            stop_token_ids=ends,
            random_seed=request.get("seed"),
            **pick(request, ("temperature", "top_p", "top_k")),
        )
        instance = self.idle.pop() if self.idle else self.engine.create_instance()
        prompt = request["prompt"]
        answer.start_ns = time.monotonic_ns()
        tokens = list(prompt) if isinstance(prompt, list) else self.tokenizer.encode(prompt)
        given, state = len(tokens), DetokenizeState(len(tokens))
        outputs = instance.async_stream_infer(
            next(self.sessions), input_ids=list(tokens), gen_config=config, stream_output=True
        )
        try:
            async for output in outputs:
                if output.status not in (ResponseType.SUCCESS, ResponseType.FINISH):
                    raise RuntimeError(f"LMDeploy ended with {output.status.name}")
                if output.token_ids:
                    tokens += output.token_ids
                    text, state = self.tokenizer.detokenize_incrementally(tokens, state)
                    answer.tick(text)
        finally:
            await outputs.aclose()
            self.idle.append(instance)
        answer.ends(given, len(tokens) - given, "stop" if tokens[-1] in ends else "length")


ENGINES = {"llamacpp": LlamaCpp, "vllm": Vllm, "lmdeploy": Lmdeploy, "tensorrt-llm": TensorRtLlm}


# Fields of a request that vLLM and TensorRT-LLM call by the same name.
SAMPLING = ("temperature", "top_p", "top_k", "seed", "max_tokens", "min_tokens", "ignore_eos")


def pick(request, names):
    return {name: request[name] for name in names if name in request}


def prompt_of(request):
    prompt = request["prompt"]
    return {"prompt_token_ids": prompt} if isinstance(prompt, list) else {"prompt": prompt}


def ends_of(model):
    """The tokens that end an answer."""
    for name in ("generation_config.json", "config.json"):
        path = pathlib.Path(model) / name
        ends = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        if ends is not None:
            return ends if isinstance(ends, list) else [ends]
    return []


async def carry_out(engine, body):
    """An HTTP status and an answer."""
    answer = Answer()
    try:
        await engine.generate(json.loads(body), answer)
        return 200, answer.report()
    except asyncio.CancelledError:
        answer.given_up = True
        raise
    except Exception as error:
        traceback.print_exc()
        return 500, {"error": {"message": f"{type(error).__name__}: {error}"}}


async def serve(engine, reader, writer):
    """One connection, with one request at a time. A request whose client hangs up is given up."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\ncontent-length: *([0-9]+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            status, answer = 200, {}
            if head.startswith(b"POST "):
                work = asyncio.ensure_future(carry_out(engine, body))
                hung_up = asyncio.ensure_future(reader.read(1))
                await asyncio.wait([work, hung_up], return_when=asyncio.FIRST_COMPLETED)
                hung_up.cancel()
                await asyncio.wait([hung_up])
                if not work.done():
                    work.cancel()
                    return
                status, answer = work.result()
            body = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 %d -\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def argument(text):
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=sorted(ENGINES))
    parser.add_argument("model", help="a folder or a file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("arguments", nargs="*", type=argument, metavar="NAME=VALUE")
    given = parser.parse_intermixed_args()
    engine = ENGINES[given.library](given.model, dict(given.arguments))
    server = await asyncio.start_server(functools.partial(serve, engine), given.host, given.port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
