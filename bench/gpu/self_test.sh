#!/usr/bin/env bash
# self_test.sh PROGRAM [TOOL]: the C++ self-test on the device, alone or under a tool of compute-sanitizer.
set -euo pipefail
[ -x "$1" ] || { echo "the build left no $(basename "$1")"; exit 77; }
[ $# -eq 1 ] && exec "$1"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) ||
  { echo "needs compute-sanitizer"; exit 77; }
# Where there is no device, the program says so itself. A test that fails, or hangs, is what the tool is there for.
said=$(timeout 10 "$1") || [ $? -ne 77 ] || { echo "$said"; exit 77; }
exec "$sanitizer" --tool "$2" --error-exitcode 1 "$1"
