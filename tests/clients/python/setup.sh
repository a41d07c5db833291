#!/bin/sh
# What the Python client test needs, in a virtual environment under target/ where `cargo test` looks for it.
# Without it the test uses the system's python3 if that has the packages, and else prints that it was skipped.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
venv="$root/target/clients/python"
if "$venv/bin/python" -c 'import grpc, grpc_tools, numpy, PIL' 2>/dev/null; then
    exit 0
fi
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$(dirname "$0")/requirements.txt"
