#!/usr/bin/env bash
# prepare.sh [PYTHON [FOLDER]]: prepares what bench/gpu.sh installs on a machine without a network, or without time to
# build: a wheel of this tree for PYTHON (default: python3.12), device_self_test, and the wheels of sentencex and d2l,
# all in FOLDER (default: .carry). Needs nvcc and a network.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3.12}
folder=$(realpath -m "${2:-.carry}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1
pip install -q cmake ninja
mkdir -p "$folder"
rm -f "$folder"/*.whl "$folder/device_self_test"
pip wheel -q --no-deps --wheel-dir "$folder" --config-settings=build-dir="$work/build" \
  --config-settings=build.targets='_bertfast;device_self_test' \
  --config-settings=cmake.define.BERTFAST_CUDA=ON \
  --config-settings=cmake.define.BERTFAST_CPP_TESTS=ON .
strip -o "$folder/device_self_test" "$work/build/tests/cpp/device_self_test"
pip download -q --no-deps --only-binary=:all: --dest "$folder" sentencex d2l==1.0.3
ls -l "$folder"
