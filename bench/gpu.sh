#!/usr/bin/env bash
# Everything about a CUDA machine in one run, offline, in less than nine minutes: build, checks, ceilings, training.
#
#   bench/gpu.sh [FOLDER]              # default: bench/results/<GPU's name>-<date>
#   bench/gpu.sh --rehearse [FOLDER]   # without a GPU: tiny sizes on the CPU, with the package that is installed
#
# It builds and installs this tree with $PYTHON (default: python3), which needs torch, numpy and what pyproject.toml
# names, pip, scikit-build-core and pybind11; on the PATH nvcc, cmake and ninja. What else it finds it uses: pytest, d2l,
# transformers, compute-sanitizer.
#
# FOLDER gets STAGE.log and STAGE.json for each stage as it ends, and results.json with all of them. Exit status 1 if a
# stage failed or ran out of time.
set -uo pipefail
cd "$(dirname "$0")/.."

export PYTHON=${PYTHON:-python3}
device=cuda
tiny=()
if [ "${1:-}" = --rehearse ]; then
  device=cpu
  tiny=(--tiny)
  shift
fi
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader --id=0 2>/dev/null | tr -cs '[:alnum:]\n' -)
out=$(realpath -m "${1:-bench/results/${gpu:-no-gpu}-$(date +%F)}")
mkdir -p "$out"
rm -f "$out"/*.json "$out"/*.log
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
export PYTHONPATH=$PWD/bench:$PWD/tests${PYTHONPATH:+:$PYTHONPATH} BERTFAST_CACHE=$build/cache HF_HUB_OFFLINE=1
end=$((SECONDS + 530))

# stage NAME SECONDS COMMAND...: runs it under that limit and what is left of the whole, and records how it went.
stage() {
  local name=$1 limit=$2 left=$((end - SECONDS)) started=$SECONDS status
  shift 2
  printf '%-12s ' "$name"
  if [ "$left" -lt 5 ]; then
    echo "no time left" >"$out/$name.log"
    status=124
  else
    RESULT="$out/$name.json" timeout --kill-after=5 "$((limit < left ? limit : left))" "$@" >"$out/$name.log" 2>&1
    status=$?
  fi
  "$PYTHON" bench/gpu/record.py "$out" "$name" "$status" "$((SECONDS - started))"
}

python_stage() {
  local name=$1 limit=$2 script=$3
  shift 3
  stage "$name" "$limit" "$PYTHON" "bench/gpu/$script" "$@" --device "$device" "${tiny[@]}"
}

stage_on_device() {
  local name=$1
  if [ "$device" = cpu ]; then
    stage "$name" 5 sh -c 'echo "needs a CUDA device"; exit 77'
  else
    stage "$@"
  fi
}

self_test=$build/tests/cpp/device_self_test

python_stage environment 20 environment.py
stage_on_device build 150 bench/gpu/build.sh "$build"
stage_on_device self-test 15 bench/gpu/self_test.sh "$self_test"
stage_on_device memcheck 45 bench/gpu/self_test.sh "$self_test" memcheck
stage_on_device racecheck 45 bench/gpu/self_test.sh "$self_test" racecheck
python_stage gpu-tests 100 gpu_tests.py
python_stage ceilings 25 ceilings.py
python_stage mlm-loss 20 mlm_loss.py
python_stage notebook 110 training.py notebook --seconds 70
python_stage base 110 training.py base --seconds 70
python_stage large 60 training.py large --seconds 35

"$PYTHON" bench/gpu/table.py "$out/results.json"
