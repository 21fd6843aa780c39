#!/usr/bin/env bash
# Runs L2P on a ViT-Ti/16 (random weights, a small synthetic stream) under hard limits of memory, each in
# a control group of its own with memory.max and without swap, and checks that the run ends and fits
# itself in. Prints each group's own memory.peak beside the limit. Needs cgroup v2 with its memory
# controller, and the right to make a group (root, or systemd's user session); skips, with the reason,
# where it has not.
#
# usage: scripts/test_memory.sh [BUILD] [MIB...]     (default: build/release 256 320 448)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case ${1:-} in
  -h | --help) print_help; exit 0 ;;
  -*) echo "error: unknown option '$1'; see scripts/test_memory.sh --help" >&2; exit 2 ;;
esac
build=build/release
if [[ ${1:-} == */* ]]; then
  build=$1
  shift
fi
limits=("$@")
((${#limits[@]} > 0)) || limits=(256 320 448)
[[ -x $build/rep ]] || fail "$build/rep is not built; run scripts/setup.sh"
rep=$(realpath "$build/rep")

skip() {
  say "skipped: $1"
  exit 0
}

group_root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[[ -n $group_root ]] || skip "there is no cgroup v2 here"
grep -qw memory "$group_root/cgroup.controllers" ||
  skip "the memory controller is not part of cgroup v2 here (it may be of version 1, which has no memory.peak)"
command -v systemd-run >/dev/null || skip "systemd-run, which makes the groups, is not installed"
scope=(systemd-run --quiet --scope --collect)
((EUID == 0)) || scope+=(--user)
"${scope[@]}" -p MemoryMax=64M true 2>/dev/null || skip "systemd-run may not make a group with a limit here"

folder=$(mktemp -d /tmp/rep-memory.XXXXXX)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/l2p.yaml" <<YAML
name: memory
dataset: {name: synthetic, classes: 4, train_per_class: 32, test_per_class: 16}
stream: {tasks: 2}
backbone: {name: vit_tiny_patch16_224, weights: random}
method: {name: l2p}
train: {epochs: 1}
YAML

failed=0
for mib in "${limits[@]}"; do
  # The program reads memory.max by itself, too: the limit of the configuration is only to switch it on.
  "${scope[@]}" -p MemoryMax="${mib}M" -p MemorySwapMax=0 bash -c '
    "$1" run "$2/l2p.yaml" -q --output "$2/out-$3" --memory-limit 100GiB
    code=$?
    group=$(sed -n "s/^0:://p" /proc/self/cgroup)
    cat "$4$group/memory.peak" >"$2/peak-$3" 2>/dev/null || echo unknown >"$2/peak-$3"
    exit $code' - "$rep" "$folder" "$mib" "$group_root" && code=0 || code=$?
  peak=$(cat "$folder/peak-$mib" 2>/dev/null || echo unknown)
  if ((code == 0)); then
    say "memory.max $mib MiB: the run ended, memory.peak $peak bytes"
    grep -o '"used": .*' "$folder/out-$mib/result.json" | head -1 || true
  else
    say "memory.max $mib MiB: exit code $code, memory.peak $peak bytes"
    failed=1
  fi
done
exit $failed
