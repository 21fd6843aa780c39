#!/usr/bin/env bash
# Kills runs of every method at random moments, resumes them, and compares each result with that of a
# run that nobody killed; a difference ends it with the seed that shows it again.
#
# usage: scripts/test_kills.sh [KILLS [BUILD]]      (default: 200 kills, build/release with its tests)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case ${1:-} in -h | --help) print_help; exit 0 ;; esac
kills=${1:-200} build=${2:-build/release}
[[ $kills =~ ^[1-9][0-9]*$ ]] || fail "the number of kills is a number from 1 on, not '$kills'"
[[ -x $build/tests/kills_test ]] || fail "$build/tests/kills_test is not built; run scripts/setup.sh --tests"
REP_KILLS=$kills exec "$build/tests/kills_test"
