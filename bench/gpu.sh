#!/usr/bin/env bash
# Checks and measures a CUDA machine, in two short calls that need no network:
#
#   bench/gpu.sh check   [--seconds 400] [FOLDER]   # does it compute correctly, and how fast is each part
#   bench/gpu.sh figures [--seconds 400] [FOLDER]   # how fast is training, ours first, then others'
#   bench/gpu.sh check|figures --rehearse [FOLDER]  # without a GPU: tiny sizes on the CPU, with the installed package
#
# The package for $PYTHON (default: python3) comes from .carry/, which bench/gpu/prepare.sh fills on another machine, or
# is built on the spot by bench/gpu/build.sh. pytest, transformers, d2l and compute-sanitizer are used if installed.
#
# FOLDER (default: bench/results/CALL-<GPU's name>-<date>) gets results.json, with each stage's results, and logs.tgz.
# Both are rewritten after each stage. Exit status 1 if a stage failed or ran out of time.
set -uo pipefail
cd "$(dirname "$0")/.."

export PYTHON=${PYTHON:-python3}
call=${1:-}
case $call in
  check | figures) seconds=400 ;;
  *) sed -n '4,6s/^# *//p' "$0"; exit 2 ;;
esac
shift
device=cuda
tiny=()
while [ $# -gt 0 ]; do
  case $1 in
    --rehearse) device=cpu; tiny=(--tiny); seconds=3600 ;;
    --seconds) seconds=$2; shift ;;
    *) break ;;
  esac
  shift
done
end=$((SECONDS + seconds))
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader --id=0 2>/dev/null | tr -cs '[:alnum:]\n' -)
out=$(realpath -m "${1:-bench/results/$call-${gpu:-no-gpu}-$(date +%F)}")
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
logs=$work/logs
mkdir "$logs"
export PYTHONPATH=$work/site:$PWD/bench:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}
export BERTFAST_CACHE=$work/cache HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
self_test=$work/device_self_test

# stage NAME SECONDS COMMAND...: runs the command under this limit and the total one, and records the outcome.
stage() {
  local name=$1 limit=$2 left=$((end - SECONDS)) started=$SECONDS status
  shift 2
  [ "$device" = cuda ] || limit=$left # a rehearsal has no time limits
  if [ "$left" -lt 5 ]; then
    echo "no time left" >"$logs/$name.log"
    status=124
  else
    RESULT="$logs/$name.json" timeout --kill-after=5 "$((limit < left ? limit : left))" "$@" >"$logs/$name.log" 2>&1
    status=$?
  fi
  "$PYTHON" bench/gpu/record.py "$logs" "$name" "$status" "$((SECONDS - started))"
  cp "$logs/results.json" "$out/results.json"
  tar czf "$out/logs.tgz" -C "$work" logs
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

stage_on_device install 170 bench/gpu/install.sh "$work"
python_stage environment 20 environment.py
if [ "$call" = check ]; then
  python_stage ceilings 20 ceilings.py
fi
python_stage device-check 90 device_check.py # later runs find its verdict in the cache
if [ "$call" = check ]; then
  stage_on_device self-test 60 "$PYTHON" bench/gpu/self_test.py "$self_test"
  for rung in cpu twins eager graph fused; do
    python_stage "ladder-$rung" 25 ladder.py "$rung"
  done
  python_stage gpu-tests 120 gpu_tests.py
  python_stage profile-notebook 25 profile_steps.py notebook
  python_stage profile-base 30 profile_steps.py base
else
  python_stage notebook-ours 70 training.py notebook ours --seconds 45
  python_stage base-ours 60 training.py base ours --seconds 30
  python_stage large-ours 60 training.py large ours --seconds 30
  python_stage mlm-loss 30 mlm_loss.py
  python_stage notebook-d2l 60 training.py notebook d2l --seconds 30
  python_stage notebook-transformers 90 training.py notebook transformers --seconds 30
  python_stage base-transformers 90 training.py base transformers --seconds 30
  stage_on_device racecheck 60 "$PYTHON" bench/gpu/self_test.py "$self_test" racecheck
fi

"$PYTHON" bench/gpu/table.py "$out/results.json"
