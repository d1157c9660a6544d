"""Stand-in for TensorRT-LLM's convert_checkpoint.py: a checkpoint is the model's configuration and its ranks."""

import argparse
import json
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--model_dir", type=pathlib.Path)
parser.add_argument("--output_dir", type=pathlib.Path)
parser.add_argument("--tp_size", type=int, default=1)
parser.add_argument("--pp_size", type=int, default=1)
args, others = parser.parse_known_args()

model = json.loads((args.model_dir / "config.json").read_text())
mapping = {"world_size": args.tp_size * args.pp_size, "tp_size": args.tp_size, "pp_size": args.pp_size}
config = {"architecture": model.get("model_type"), "mapping": mapping, "asked": others}
(args.output_dir / "config.json").write_text(json.dumps(config))
for rank in range(mapping["world_size"]):
    (args.output_dir / f"rank{rank}.safetensors").touch()
