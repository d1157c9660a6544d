"""Stand-in for TensorRT-LLM's BLS model: it loads, and says that it is none."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            error = pb_utils.TritonError("the stand-in has no tensorrt_llm_bls")
            final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            request.get_response_sender().send(pb_utils.InferenceResponse(error=error), flags=final)
