#!/usr/bin/env bash
# install.sh FOLDER: the package for $PYTHON in FOLDER/site, and FOLDER/device_self_test: from .carry/, else built here.
set -euo pipefail
cd "$(dirname "$0")/../.."
if compgen -G '.carry/bertfast-*.whl' >/dev/null; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$1/site" .carry/*.whl
  cp .carry/device_self_test "$1/device_self_test"
else
  bench/gpu/build.sh "$1/build" "$1/site"
  cp "$1/build/tests/cpp/device_self_test" "$1/device_self_test"
fi
cd /
"$PYTHON" -c 'from bertfast._native import native; assert native.has_cuda; print(native.__file__)'
