#!/bin/sh
# What the Python client tests need, the package in launch/clients/python among it, in a virtual environment under target/
# where `cargo test` looks for it. Without it the tests use the system's python3 if that has the packages, and else print
# that they were skipped.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
venv="$root/target/clients/python"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
if ! "$venv/bin/python" -c 'import grpc, grpc_tools, numpy, PIL, setuptools' 2>/dev/null; then
    "${PYTHON:-python3}" -m venv "$venv"
    pip install -r "$(dirname "$0")/requirements.txt"
fi
# Anew each time: it is of this very proto.
pip install --force-reinstall --no-deps --no-build-isolation "$root/launch/clients/python"
