#!/usr/bin/env bash
# Lay out a real Triton server for a machine without a GPU, for manifests/triton-cpu.yaml.
#
#   scripts/triton_cpu/setup.sh [FOLDER]        default: .triton-cpu; needs Python 3.8 to 3.13 and about 500 MB
#
# The server is PyPI's nvidia-pytriton. A Python backend named `tensorrtllm` answers for the engine, so that the model
# repository which benchrun renders loads unchanged; TensorRT-LLM's scripts and Python models have stand-ins.
# Exit status 69: this machine has no such Python, or reaches no package index.
set -euo pipefail
unavailable() { echo "setup.sh: $1" >&2; exit 69; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:-.triton-cpu}"
folder=$(cd "${1:-.triton-cpu}" && pwd)

python3 -c 'import ensurepip, sys, venv; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 13))' ||
    unavailable "there is no python3 of version 3.8 to 3.13 with venv and ensurepip"
[ -x "$folder/venv/bin/pip" ] || python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nvidia-pytriton==0.7.0 tokenizers ||
    unavailable "pip could not install nvidia-pytriton 0.7.0 and tokenizers"

paths() { "$folder/venv/bin/python3" -c "import sysconfig; print($1)"; }
site=$(paths 'sysconfig.get_paths()["purelib"]')
minor=$(paths 'sysconfig.get_python_version()')
libpython=$(paths 'sysconfig.get_config_var("LIBDIR")')
triton=$site/pytriton/tritonserver

mkdir -p "$folder"/{bin,backends/python,backends/tensorrtllm,examples/qwen,examples/models/core/qwen,all_models/inflight_batcher_llm}
cp -R "$triton/backends/python/." "$folder/backends/python/"
cp "$triton/python_backend_stubs/$minor/triton_python_backend_stub" "$folder/backends/python/"
chmod +x "$folder/backends/python/triton_python_backend_stub" "$triton/bin/tritonserver"
cp "$here/tensorrt_llm.py" "$folder/backends/tensorrtllm/model.py"
for model in preprocessing postprocessing; do
    mkdir -p "$folder/all_models/inflight_batcher_llm/$model/1"
    cp "$here/$model.py" "$folder/all_models/inflight_batcher_llm/$model/1/model.py"
done
for model in ensemble tensorrt_llm tensorrt_llm_bls; do
    mkdir -p "$folder/all_models/inflight_batcher_llm/$model/1"
done
# Nothing asks for it here, but a repository is loaded whole.
cp "$here/tensorrt_llm_bls.py" "$folder/all_models/inflight_batcher_llm/tensorrt_llm_bls/1/model.py"
mkdir -p "$folder/all_models/llmapi/tensorrt_llm/1"
cp "$here/llmapi.py" "$folder/all_models/llmapi/tensorrt_llm/1/model.py"
for family in qwen models/core/qwen; do
    cp "$here/convert_checkpoint.py" "$folder/examples/$family/"
done
install -m 755 "$here/trtllm-build" "$folder/bin/"
ln -sf "$folder/venv/bin/python3" "$folder/bin/python3"

# The backend's interpreter takes its home from the first `python3` on PATH.
cat >"$folder/bin/tritonserver" <<EOF
#!/bin/sh
export LD_LIBRARY_PATH="$site/nvidia_pytriton.libs:$libpython\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export PATH="$folder/venv/bin:\$PATH"
exec "$triton/bin/tritonserver" --backend-directory="$folder/backends" --allow-gpu-metrics=false "\$@"
EOF
chmod +x "$folder/bin/tritonserver"
echo "PATH=$folder/bin:\$PATH benchrun apply manifests/triton-cpu.yaml"
