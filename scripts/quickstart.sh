#!/usr/bin/env bash
# Installs, builds and runs a first experiment that needs no download: REP-L2P on synthetic images.
#
# usage: scripts/quickstart.sh [options of rep run, e.g. --seed 7]
#
# Ends with the path of the result. A run that was stopped goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
  print_help
  exit 0
fi
scripts/setup.sh
output=results/quickstart resume=()
if [[ -e $output/checkpoint/state.safetensors ]] &&
  ! grep -q '"complete": *true' $output/result.json 2>/dev/null; then
  resume=(--resume)
fi
say "running configs/quickstart.yaml"
build/release/rep run configs/quickstart.yaml --output $output "${resume[@]}" "$@"
say "the result is $output/result.json"
