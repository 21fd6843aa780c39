#!/usr/bin/env bash
# Installs what is missing, builds everything and runs the tests; ctest's summary comes last.
#
# usage: scripts/test.sh [--label L]... [--all] [--slurm] [--asan | --preset P] [--torch PATH]
#
#   --label L      only tests with this label: unit, learn, e2e, data, lint, slow, gpu, slurm or long
#   --all          every test; without it, those labelled slow, gpu, slurm or long are left out
#   --slurm        only the tests against a SLURM, which is installed and started for them
#                  (scripts/test_slurm.sh)
#   --asan         the build with AddressSanitizer and UndefinedBehaviorSanitizer
#   --preset P     another build: release (default), dev or asan
#   --torch PATH   against the LibTorch in PATH (see scripts/setup.sh --help)
#
# With CI=true in the environment every test is listed as it ends, and a password is never asked for.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

preset=release torch='' labels='' slurm=no selection=(-LE '^(slow|gpu|slurm|long)$')
while (($# > 0)); do
  case $1 in
    --label) labels+="|${2:?"--label needs a label"}"; shift ;;
    --all) selection=() ;;
    --slurm) slurm=yes ;;
    --asan) preset=asan ;;
    --preset) preset=${2:?"--preset needs release, dev or asan"}; shift ;;
    --torch) torch=${2:?"--torch needs a folder"}; shift ;;
    -h | --help) print_help; exit 0 ;;
    *) echo "error: unknown option '$1'; see scripts/test.sh --help" >&2; exit 2 ;;
  esac
  shift
done
if [[ -n $labels ]]; then selection=(-L "^(${labels#|})\$"); fi

scripts/setup.sh --tests --preset "$preset" ${torch:+--torch "$torch"}

folder=$(build_folder "$preset" "$torch")
if [[ $slurm == yes ]]; then exec scripts/test_slurm.sh "$folder"; fi
ctest=$(dirname "$(find_cmake)")/ctest
if [[ ${CI:-} != true && -t 1 ]]; then selection+=(--progress); fi
say "testing $folder"
# Two at a time: most tests are of one thread.
exec "$ctest" --test-dir "$folder" --output-on-failure --no-tests=error --timeout 1200 --parallel 2 \
  "${selection[@]}"
