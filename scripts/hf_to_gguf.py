#!/usr/bin/env python3
"""A Hugging Face folder of the Llama or Qwen2 family as a GGUF file, without torch; needs gguf and numpy.

Stands in for llama.cpp's `convert_hf_to_gguf.py`, with the arguments that the recipe gives: `engine.programs.convert`.
Only tokenizers that split text as GPT-2 does, as that of dummy models.
"""

import argparse
import json
import pathlib

import gguf
import numpy

FAMILIES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}


def tensors(folder):
    """Name and values of each tensor, in fp32."""
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name == "__metadata__":
                continue
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            yield name, as_fp32(data[start:end], entry["dtype"]).reshape(entry["shape"])


def as_fp32(data, dtype):
    if dtype == "BF16":
        return (numpy.frombuffer(data, numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
    return numpy.frombuffer(data, {"F16": numpy.float16, "F32": numpy.float32}[dtype]).astype(numpy.float32)


def interleaved(weights, heads):
    """Llama's rotary halves as llama.cpp wants them: pairs beside each other."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def add_tokenizer(writer, folder, rows):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    pre = tokenizer["pre_tokenizer"]
    if pre.get("type") != "ByteLevel" or tokenizer["model"]["type"] != "BPE":
        raise SystemExit("only a byte-level BPE tokenizer without a pattern of its own is known here")
    special = {token["id"] for token in tokenizer["added_tokens"]}
    words = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    words |= {index: word for word, index in tokenizer["model"]["vocab"].items()}
    kind = lambda index: gguf.TokenType.CONTROL if index in special else gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([words.get(index, f"[unused {index}]") for index in range(rows)])
    writer.add_token_types([kind(index) if index in words else gguf.TokenType.UNUSED for index in range(rows)])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_add_bos_token(False)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    writer.add_eos_token_id(next(index for index, word in words.items() if word == settings["eos_token"]))
    if "chat_template" in settings:
        writer.add_chat_template(settings["chat_template"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--outfile", required=True)
    parser.add_argument("--outtype", choices=TYPES, default="f16")
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    family = FAMILIES[config["model_type"]]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    writer = gguf.GGUFWriter(args.outfile, gguf.MODEL_ARCH_NAMES[family])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config.get("head_dim", config["hidden_size"] // heads))
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    matrix_type, file_type = TYPES[args.outtype]
    writer.add_file_type(file_type)
    add_tokenizer(writer, args.folder, config["vocab_size"])
    names = gguf.get_tensor_name_map(family, config["num_hidden_layers"])
    for name, values in tensors(args.folder):
        if family == gguf.MODEL_ARCH.LLAMA and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = interleaved(values, heads if "q_proj" in name else kv_heads)
        # Norms and biases stay exact, as llama.cpp's own converter has them.
        kind = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else matrix_type
        base, ending = name.rsplit(".", 1)
        writer.add_tensor(f"{names.get_name(base)}.{ending}", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
