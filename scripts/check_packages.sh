#!/usr/bin/env bash
# Checks that the Debian packages which scripts/setup.sh installs, and those on lines of apt-get install, can be
# installed here, and that the containers take theirs from scripts/setup.sh. Prints every offence; skips where apt
# knows no packages.
#
# usage: scripts/check_packages.sh [FILE]...
#
#   FILE   more files with apt-get install lines (default: containers/ and scripts/)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
  print_help
  exit 0
fi
status=0
offend() { echo "$*"; status=1; }

for container in containers/*; do
  grep -q 'scripts/setup\.sh' "$container" || offend "$container: does not run scripts/setup.sh"
  base=$(sed -n 's/^F[Rr][Oo][Mm]:\{0,1\} *\([^ ]*\).*/\1/p' "$container" | head -n 1)
  [[ $base =~ debian:12 ]] || offend "$container: begins from '$base', not from Debian 12"
done
# What the build reads must reach a container.
for needed in src scripts cmake configs docs results CMakeLists.txt CMakePresets.json; do
  if grep -qxE -- "/?$needed/?" .dockerignore; then offend ".dockerignore: leaves out $needed"; fi
done

if ! command -v apt-cache >/dev/null || [[ -z $(apt-cache policy libtorch-dev 2>/dev/null) ]]; then
  echo "skipped: apt knows no packages here (no Debian, or apt-get update has not run)"
  exit "$status"
fi

# The words after apt-get install, but for options, variables and what is quoted.
named_in() {
  sed -e ':a' -e '/\\$/ { N; s/\\\n/ /; ba' -e '}' "$@" | grep -v '^ *#' |
    grep -oE 'apt(-get)?( -[^ ]+| "[^"]*")* install [^&|;>)]*' | sed 's/.* install //' | tr ' ' '\n' |
    grep -E '^[a-z0-9][a-z0-9.+-]+$' || true
}

while read -r package; do
  candidate=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
  [[ -n $candidate && $candidate != '(none)' ]] || offend "$package: apt has no such package"
done < <({ scripts/setup.sh --packages; named_in containers/* scripts/*.sh "$@"; } | sort -u)
exit "$status"
