#!/usr/bin/env python3
"""Write what TensorRT-LLM's own config.pbtxt templates mean, for tests/it/tensorrt_llm.rs.

usage: triton_meaning.py TEMPLATES OUT     (pip install tritonclient[grpc])

TEMPLATES has MODEL/config.pbtxt as a release of the backend ships them (all_models/inflight_batcher_llm). Each is filled
with the settings below as fill_template.py does, read by the official protobuf classes, and written as canonical text
format to OUT/MODEL.pbtxt. Parameters that stay unfilled are left out: the server then takes its default, as it does for
an absent one.
"""

import pathlib
import re
import string
import sys

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

SETTINGS = {
    "triton_backend": "tensorrtllm",
    "triton_max_batch_size": "8",
    "decoupled_mode": "True",
    "max_queue_delay_microseconds": "0",
    "max_queue_size": "0",
    "preprocessing_instance_count": "4",
    "postprocessing_instance_count": "4",
    "bls_instance_count": "8",
    "logits_datatype": "TYPE_FP32",
    "encoder_input_features_data_type": "TYPE_FP16",
    "prompt_embedding_table_data_type": "TYPE_FP16",
    "tokenizer_dir": "<fetch>",
    "engine_dir": "<build>",
    "add_special_tokens": "False",
    "skip_special_tokens": "True",
    "multimodal_model_path": "",
    "accumulate_tokens": "False",
    "tensorrt_llm_model_name": "tensorrt_llm",
    "batching_strategy": "inflight_fused_batching",
    "max_beam_width": "1",
    "batch_scheduler_policy": "guaranteed_no_evict",
    "max_tokens_in_paged_kv_cache": "24576",
    "kv_cache_free_gpu_mem_fraction": "0.5",
    "enable_kv_cache_reuse": "True",
    "enable_chunked_context": "False",
    "exclude_input_in_output": "True",
    "stats_check_period_ms": "100",
}


def meaning(template: str) -> str:
    lines = [line for line in template.splitlines() if not line.lstrip().startswith("#")]
    filled = string.Template("\n".join(lines)).safe_substitute(SETTINGS)
    config = text_format.Parse(filled, model_config_pb2.ModelConfig())
    for key in [key for key, value in config.parameters.items() if re.search(r"\$\{", value.string_value)]:
        del config.parameters[key]
    # A line for each field of the message itself.
    return re.sub(r"\n(?=[ }])\s*", " ", text_format.MessageToString(config))


def main() -> None:
    templates, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(templates.glob("*/config.pbtxt")):
        (out / f"{file.parent.name}.pbtxt").write_text(meaning(file.read_text()))


if __name__ == "__main__":
    main()
