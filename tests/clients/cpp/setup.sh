#!/bin/sh
# Builds the C++ client in launch/clients/cpp into target/clients/cpp, where `cargo test` looks for it; installs what that
# takes where this is Debian or Ubuntu and we may. Without it the test prints that it was skipped.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
if ! { command -v cmake && command -v c++ && command -v grpc_cpp_plugin && pkg-config --exists grpc++ protobuf; } >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            cmake make g++ libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc pkg-config >/dev/null
    else
        echo "the C++ client was not built: apt install cmake g++ libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc pkg-config" >&2
        exit 0
    fi
fi
cmake -S "$root/launch/clients/cpp" -B "$root/target/clients/cpp" >/dev/null
cmake --build "$root/target/clients/cpp" >/dev/null
