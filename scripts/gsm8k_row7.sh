#!/usr/bin/env bash
# Table 1 row 7, before and after verification training: is the reference still needed?
#
#   scripts/gsm8k_row7.sh RECIPES          e.g. gsm8k, after `midcourse run` on its loop
#
# The policy and its rollouts are those of the loop. Without a reference, the model before
# verification training proposes once and the model after it once: two run directories next to the
# loop's that take over its rollouts (a folder's key is what made it, so they are found).
set -euo pipefail
recipes=$1
name=$(basename "$recipes")
for which in before after; do
  run=runs/$name-row7-$which
  mkdir -p "$run"
  for stage in sample grade select; do
    test -e "$run/$stage" || cp -r "runs/$name-smollm2/$stage" "$run/$stage"
  done
  proposer=worked
  test $which = before || proposer=verification
  "${PYTHON:-python3}" -m midcourse verify "$recipes-smollm2.toml" --run-dir "$run" \
    --set propose.reference=none --set 'verify.conditions=["prefix_intervention"]' \
    --set "proposer_model={\"path\": \"runs/$name-warmup/$proposer/model/final\"}"
done
