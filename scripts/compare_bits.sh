#!/usr/bin/env bash
# Shows that two builds of rep compute the same: runs several methods, with and without REP, on synthetic
# images with each, and compares bit for bit every tensor of the last checkpoints, result.json,
# metrics.jsonl, what `rep plan` foresees and what pre-training writes. Left out is what may differ between
# two runs of one build: times, energy, resident memory, the revision. Names that only one build has are
# listed. Exit status 1 when a value differs.
#
# usage: scripts/compare_bits.sh BEFORE AFTER [METHOD...]
#   BEFORE, AFTER   executables of rep
#   METHOD...       [l2p dualprompt coda_prompt hide_prompt er ewc icarl joint]
set -euo pipefail
. "$(dirname "$0")/common.sh"

case ${1:-} in -h | --help) print_help; exit 0 ;; esac
[[ $# -ge 2 ]] || fail "two executables are compared: scripts/compare_bits.sh BEFORE AFTER [METHOD...]"
before=$(realpath "$1") after=$(realpath "$2")
shift 2
[[ $# -gt 0 ]] && methods=("$@") || methods=(l2p dualprompt coda_prompt hide_prompt er ewc icarl joint)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The query model is wider than the backbone, so that a projection is drawn.
readonly rep='efficiency:
  query_backbone: {name: vit_tiny_patch16_224, weights: random}
  token_merging: {kind: atom, n: 4}
  layer_dropping: {kind: ald, decay: 0.05}'

experiment() {  # METHOD AUGMENT [EFFICIENCY]
  local trainable=none extra=''
  case $1 in
    er) trainable=1 extra=', buffer_size: 20' ;;
    icarl) extra=', buffer_size: 20' ;;
    coda_prompt | cps_prompt | os_prompt) extra=', pool_size: 30' ;;  # no more components than the width
  esac
  echo "name: bits
dataset: {name: synthetic, classes: 6, train_per_class: 18, test_per_class: 4}
stream: {tasks: 3}
backbone: {name: vit_nano, weights: random, trainable: $trainable}
method: {name: $1$extra}
train: {epochs: 2, batch_size: 8, augment: $2}
threads: 1
${3:-}"
}

for method in "${methods[@]}"; do
  experiment "$method" none >"$work/$method.yaml"  # queries are cached
  experiment "$method" l2p "$rep" >"$work/rep-$method.yaml"
done
cat >"$work/pretrain.yaml" <<'END'
name: bits
dataset: {name: synthetic, classes: 4, train_per_class: 18, test_per_class: 4}
backbone: {name: vit_nano}
train: {epochs: 1, batch_size: 8, drop_last: true}
threads: 1
END

for build in before after; do
  for config in "$work"/*.yaml; do
    name=$(basename "$config" .yaml)
    out=$work/$build/$name
    mkdir -p "$out"
    if [[ $name == pretrain ]]; then
      "${!build}" pretrain "$config" -q --output "$out/weights.safetensors" >/dev/null
      continue
    fi
    "${!build}" run "$config" -q --output "$out" 2>/dev/null
    "${!build}" plan "$config" --json >"$out/plan.json" 2>/dev/null
  done
done

python3 - "$work" <<'END'
import json, pathlib, struct, sys

work = pathlib.Path(sys.argv[1])
MAY_DIFFER = {"started", "rep", "seconds", "seconds_median", "seconds_estimated", "joules", "energy_joules",
              "energy_by_phase", "energy_source", "peak_rss_bytes"}
differ, compared, only = [], {"tensors": 0, "values": 0, "files": 0}, {}


def compare(where, a, b):
    """JSON values; names that only one of them has go to `only`."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() ^ b.keys():
            side = "before" if key in a else "after"
            only.setdefault(f"{side}: {where.split(' ', 1)[1]}.{key}", []).append(where.split(" ")[0])
        for key in (a.keys() & b.keys()) - MAY_DIFFER:
            compare(f"{where}.{key}", a[key], b[key])
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            compare(f"{where}[{i}]", x, y)
    else:
        compared["values"] += 1
        if a != b and not (a != a and b != b):
            differ.append(f"{where}: {a} and {b}")


def safetensors(path):
    """{name: (type, shape, bytes)}, with the metadata's JSON values parsed."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    values = header.pop("__metadata__", {})
    body = data[8 + length:]
    tensors = {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items()}
    return tensors, json.loads(values["rep"]) if "rep" in values else values


for path in sorted((work / "before").rglob("*.*")):
    name = str(path.relative_to(work / "before"))
    other = work / "after" / name
    if path.is_dir() or path.suffix in (".log", ".png"):
        continue
    run = name.split("/")[0]
    compared["files"] += 1
    if not other.exists():
        only.setdefault("before: " + name.split("/", 1)[1], []).append(run)
    elif path.suffix == ".json":
        compare(name.replace("/", " ", 1), json.loads(path.read_text()), json.loads(other.read_text()))
    elif path.suffix == ".safetensors":
        (a, values_a), (b, values_b) = safetensors(path), safetensors(other)
        lone = {key: b[key] for key in b.keys() - a.keys()}
        for key in sorted(a.keys() - b.keys()):  # under another name, or gone
            same = next((name for name in sorted(lone) if lone[name] == a[key]), None)
            if same is not None:
                compared["tensors"] += 1
                del lone[same]
                only.setdefault(f"before: tensor {key}, which is {same} now", []).append(run)
            else:
                only.setdefault(f"before: tensor {key}", []).append(run)
        for key in lone:
            only.setdefault(f"after: tensor {key}", []).append(run)
        for key in a.keys() & b.keys():
            compared["tensors"] += 1
            if a[key] != b[key]:
                differ.append(f"{name}: tensor {key}, {a[key][:2]} and {b[key][:2]}")
        compare(name.replace("/", " ", 1), values_a, values_b)
    elif path.read_bytes() != other.read_bytes():
        differ.append(f"{name}: other bytes")

for name, runs in sorted(only.items()):
    print(f"only {name} ({len(runs)} runs)")
for line in differ[:200]:
    print("DIFFERS", line)
print(f"{compared['files']} files, {compared['tensors']} tensors and {compared['values']} values compared: "
      + (f"{len(differ)} differ" if differ else "the same bits"))
sys.exit(bool(differ))
END
