#!/usr/bin/env bash
# self_test.sh PROGRAM [TOOL]: the C++ self-test on the device, alone or under a tool of compute-sanitizer.
set -euo pipefail
[ -x "$1" ] || { echo "the build left no $(basename "$1")"; exit 77; }
[ $# -eq 1 ] && exec "$1"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) ||
  { echo "needs compute-sanitizer"; exit 77; }
"$1" >/dev/null || { "$1"; exit; }  # where there is no device, it says so itself
exec "$sanitizer" --tool "$2" --error-exitcode 1 "$1"
