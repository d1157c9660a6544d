"""Stand-in for TensorRT-LLM's BLS model: it calls preprocessing, the engine and postprocessing itself, one request at a time.

With `accumulate_tokens` each answer carries the whole text so far, as the real one's does.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
# The engine's name of what a request says, where it is not the same.
RENAMED = {"stream": "streaming", "length_penalty": "len_penalty", "top_k": "runtime_top_k", "top_p": "runtime_top_p"}
FOR_ENGINE = [*RENAMED, "min_length", "min_tokens", "exclude_input_in_output", "return_perf_metrics"]


def value(response, name):
    return pb_utils.get_output_tensor_by_name(response, name).as_numpy()


def named(name, tensor):
    return pb_utils.Tensor(name, tensor.as_numpy())


def checked(response):
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return response


def ask(model, inputs, outputs, **how):
    return pb_utils.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=outputs).exec(**how)


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        self.accumulate = parameters["accumulate_tokens"].lower() == "true"
        self.engine = parameters["tensorrt_llm_model_name"]
        self.outputs = [output["name"] for output in config["output"] if output["name"] != "text_output"]
        # Until the version that counts tokens, postprocessing takes the engine's other outputs and hands them on.
        self.handed_on = [] if "num_output_tokens" in self.outputs else self.outputs

    def execute(self, requests):
        answers = [self.answer(request) for request in requests]
        return None if self.decoupled else answers

    def answer(self, request):
        """The one response, or all of them sent and `None`."""
        sender = request.get_response_sender() if self.decoupled else None
        response = None
        try:
            for response in self.responses(request):
                if sender:
                    sender.send(response)
        except pb_utils.TritonModelException as error:
            response = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
            if sender:
                sender.send(response)
        if sender:
            sender.send(flags=FINAL)
        return None if sender else response

    def responses(self, request):
        def of_request(name):
            return pb_utils.get_input_tensor_by_name(request, name)

        question = [named("QUERY", of_request("text_input")), named("REQUEST_OUTPUT_LEN", of_request("max_tokens"))]
        ready = checked(ask("preprocessing", question, ["INPUT_ID", "REQUEST_INPUT_LEN", "REQUEST_OUTPUT_LEN"]))
        inputs = [
            pb_utils.Tensor("input_ids", value(ready, "INPUT_ID")),
            pb_utils.Tensor("input_lengths", value(ready, "REQUEST_INPUT_LEN")),
            pb_utils.Tensor("request_output_len", value(ready, "REQUEST_OUTPUT_LEN")),
        ]
        said = [(name, of_request(name)) for name in FOR_ENGINE]
        # Some come without the dimension of the batch, which this model has reshaped away.
        scalars = [(RENAMED.get(name, name), tensor.as_numpy()) for name, tensor in said if tensor is not None]
        inputs += [pb_utils.Tensor(name, scalar.reshape(1, 1)) for name, scalar in scalars]
        outputs = ["output_ids", "sequence_length", *self.outputs]
        so_far = None
        answers = ask(self.engine, inputs, outputs, decoupled=True) if self.decoupled else [ask(self.engine, inputs, outputs)]
        for answer in answers:
            if not checked(answer).output_tensors():
                continue
            ids = value(answer, "output_ids")
            if self.accumulate:
                so_far = ids if so_far is None else np.concatenate([so_far, ids], axis=2)
                ids = so_far
            yield self.response(ids, answer)

    def response(self, ids, answer):
        lengths = np.full([1, 1], ids.shape[2], np.int32)
        inputs = [pb_utils.Tensor("TOKENS_BATCH", ids), pb_utils.Tensor("SEQUENCE_LENGTH", lengths)]
        inputs += [pb_utils.Tensor(name.upper(), value(answer, name)) for name in self.handed_on]
        text = value(checked(ask("postprocessing", inputs, ["OUTPUT"])), "OUTPUT")
        others = [pb_utils.Tensor(name, value(answer, name)) for name in self.outputs]
        return pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text), *others])
