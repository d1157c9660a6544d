"""Stand-in for TensorRT-LLM's preprocessing: text to token ids, by the model's own tokenizer.json."""

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = config["parameters"]
        folder = parameters["tokenizer_dir"]["string_value"]
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.special = parameters["add_special_tokens"]["string_value"] == "True"
        self.outputs = [(output["name"], output["data_type"], output["dims"]) for output in config["output"]]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "QUERY").as_numpy().reshape(-1)
        rows = [self.tokenizer.encode(text.decode(), add_special_tokens=self.special).ids or [0] for text in texts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for row, tokens in zip(ids, rows):
            row[: len(tokens)] = tokens
        made = {
            "INPUT_ID": ids,
            "REQUEST_INPUT_LEN": np.array([[len(tokens)] for tokens in rows], np.int32),
            "REQUEST_OUTPUT_LEN": pb_utils.get_input_tensor_by_name(request, "REQUEST_OUTPUT_LEN").as_numpy(),
        }
        return pb_utils.InferenceResponse([self.tensor(output, made, len(rows)) for output in self.outputs])

    def tensor(self, output, made, batch):
        """What the engine's stand-in does not look at is there, and zero."""
        name, kind, dims = output
        empty = np.zeros([batch] + [max(1, int(size)) for size in dims], pb_utils.triton_string_to_numpy(kind))
        return pb_utils.Tensor(name, made.get(name, empty))
