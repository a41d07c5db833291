#!/bin/sh
# Cyclone DDS, which ROS 2 itself runs on, from PyPI in a virtual environment under target/ where the ROS 2 tests look for
# it. Without it the test against it prints that it was skipped.
set -eu
venv="$(cd "$(dirname "$0")/../.." && pwd)/target/ros2"
if ! "$venv/bin/python" -c 'import cyclonedds' 2>/dev/null; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'cyclonedds>=0.10'
fi
