"""Stand-in for TensorRT-LLM's Python model `llmapi`: the prompt's own tokens, repeated, one every TRITON_CPU_STEP_MS (10).

As the real one does, it streams the whole text so far, and reads what it serves from `model.yaml` beside it.
"""

import os
import re
import threading
import time

import numpy as np
import tokenizers
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        with open(os.path.join(pb_utils.get_model_dir(), "model.yaml"), encoding="utf-8") as file:
            self.settings = dict(re.findall(r'^ *(\w+): "?([^"\n]+)', file.read(), re.MULTILINE))
        self.tokenizer = tokenizers.Tokenizer.from_file(os.path.join(self.settings["model"], "tokenizer.json"))
        self.decoupled = self.settings["decoupled"] == "true"
        self.step = float(os.environ.get("TRITON_CPU_STEP_MS", 10)) / 1e3

    def execute(self, requests):
        answers = [self.answer(request) for request in requests]
        return None if self.decoupled else answers

    def answer(self, request):
        def value(name, default):
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            return default if tensor is None else tensor.as_numpy().reshape(-1)[0]

        prompt = self.tokenizer.encode(value("text_input", b"").decode(), add_special_tokens=False).ids or [0]
        wanted = int(value("sampling_param_max_tokens", 16))
        tokens = [prompt[at % len(prompt)] for at in range(wanted)]
        if not self.decoupled:
            time.sleep(self.step * wanted)
            return self.response(tokens)
        whole = not value("streaming", False)
        threading.Thread(target=self.stream, args=(request.get_response_sender(), tokens, whole), daemon=True).start()
        return None

    def stream(self, sender, tokens, whole):
        for count in range(1, len(tokens) + 1):
            time.sleep(self.step)
            if not whole or count == len(tokens):
                sender.send(self.response(tokens[:count]))
        sender.send(flags=FINAL)

    def response(self, tokens):
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return pb_utils.InferenceResponse([pb_utils.Tensor("text_output", np.array([text.encode()], np.object_))])
