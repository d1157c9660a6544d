"""Stand-in for TensorRT-LLM's postprocessing: token ids to text, each answer by itself."""

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
        self.skip = parameters["skip_special_tokens"]["string_value"] == "True"
        self.outputs = [output["name"] for output in config["output"] if output["name"] != "OUTPUT"]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        ids = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy().reshape(len(ids), -1)
        beams = [beam[:length] for row, counts in zip(ids, lengths) for beam, length in zip(row, counts)]
        texts = [self.tokenizer.decode(beam.tolist(), skip_special_tokens=self.skip).encode() for beam in beams]
        tensors = [pb_utils.Tensor("OUTPUT", np.array(texts, dtype=object))]
        for name in self.outputs:
            passed_on = pb_utils.get_input_tensor_by_name(request, name.removeprefix("OUT_"))
            if passed_on is not None:
                tensors.append(pb_utils.Tensor(name, passed_on.as_numpy()))
        return pb_utils.InferenceResponse(tensors)
