#!/usr/bin/env python3
"""Makes tests/it/fixtures/golden: tiny models by Hugging Face transformers, and the logits that it computes.

    pip install torch==2.15.0 transformers==5.23.0
    scripts/golden_logits.py tests/it/fixtures/golden

The embedded engine must load the folders and give the same logits.
"""
import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SHAPE = dict(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
)
MODELS = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, rope_theta=1_000_000.0, tie_word_embeddings=True)),
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, rope_theta=10_000.0, tie_word_embeddings=False)),
}
TOKENS = [3, 17, 5, 39, 0, 21, 8, 8, 30, 12, 1, 26]


def main(out: str) -> None:
    for name, (model_class, config) in MODELS.items():
        torch.manual_seed(20261122)
        model = model_class(config).float().eval()
        # The usual tiny weights, zero biases and unit norms would hide a wrong bias, norm or rotation.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.4 + (1.0 if parameter.dim() == 1 else 0.0))
            logits = model(torch.tensor([TOKENS])).logits[0]
        folder = Path(out) / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        golden = {"tokens": TOKENS, "logits": [[round(x, 6) for x in row] for row in logits.tolist()]}
        (folder / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
