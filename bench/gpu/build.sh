#!/usr/bin/env bash
# build.sh FOLDER SITE: builds this tree's package in FOLDER, without a network, and installs it in the folder SITE.
# Also builds tests/cpp/device_self_test in FOLDER.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
for tool in nvcc cmake ninja; do
  command -v "$tool" >/dev/null || missing+=("$tool (on the PATH)")
done
needed=$(sed -n '/^dependencies = \[/,/^]/s/^ *"\([a-z]*\).*/\1/p' pyproject.toml)  # packages named as their modules are
for module in pip scikit_build_core pybind11 $needed; do
  "$PYTHON" -c "import $module" 2>/dev/null || missing+=("$module (a module of $("$PYTHON" --version))")
done
if [ ${#missing[@]} -gt 0 ]; then
  printf -v list ', %s' "${missing[@]}"
  echo "missing: ${list:2}"
  exit 1
fi

"$PYTHON" -m pip install --no-index --no-build-isolation --no-deps --target "$2" \
  --config-settings=build-dir="$1" --config-settings=build.targets='_bertfast;device_self_test' \
  --config-settings=cmake.define.BERTFAST_CUDA=ON --config-settings=cmake.define.BERTFAST_CPP_TESTS=ON .
