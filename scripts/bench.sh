#!/usr/bin/env bash
# Times the training steps of methods on backbones, and writes the table into results/.
#
# usage: scripts/bench.sh [--rep PATH] [--steps N] [--output DIR]
#                         [METHODS [BACKBONES [PRECISIONS]]]
#
#   METHODS     "l2p rep-l2p dualprompt ..." (default: the prompt methods, each with and without REP)
#   BACKBONES   "tiny base large" (default: all three; random weights at 224 pixels, batch 16)
#   PRECISIONS  "fp32 bf16" (default: fp32)
#
# Every cell is one `rep bench`: its JSON goes to DIR (results/bench), and DIR/table.md lists them all,
# those of earlier calls too. Steps are in multiples of one plain forward pass, op by op, of the same
# batch, timed between the steps of the same process. REP queries a ViT-Ti and holds the keep ratio of
# layer dropping at its mean over a task of 1,875 steps, as configs/bench/large-rep-l2p.yaml explains; its
# steps differ by the blocks they drop, so four times N of them are taken.
# Testing is that of a run of 10 tasks: an image's query is computed once, its prompted pass in every
# task from its own on.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

rep=build/release/rep steps=5 output=results/bench
while [[ ${1:-} == -* ]]; do
  case $1 in
    -h | --help) print_help; exit 0 ;;
    --rep) rep=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    *) fail "unknown option '$1'; see --help" ;;
  esac
done
read -ra methods <<<"${1:-l2p rep-l2p dualprompt rep-dualprompt coda_prompt rep-coda_prompt}"
read -ra backbones <<<"${2:-tiny base large}"
read -ra precisions <<<"${3:-fp32}"
[[ -x $rep ]] || fail "no executable '$rep'; build it with scripts/setup.sh, or name one with --rep"
command -v python3 >/dev/null || fail "the table is made with python3; install it"
mkdir -p "$output"

for precision in "${precisions[@]}"; do
  for backbone in "${backbones[@]}"; do
    for method in "${methods[@]}"; do
      config=configs/bench/large-l2p.yaml count=$steps
      if [[ $method == rep-* ]]; then config=configs/bench/large-rep-l2p.yaml count=$((4 * steps)); fi
      file=$output/$backbone-$method-$precision.json
      say "$method on $backbone, $precision"
      "$rep" bench "$config" --steps "$count" --warmup 1 --json --set name="$method" \
        --set method="{name: ${method#rep-}}" --set precision="$precision" \
        --set dataset.train_per_class=16 --set dataset.test_per_class=16 --set stream.tasks=10 \
        --set backbone.name="vit_${backbone}_patch16_224" >"$file.tmp"
      mv "$file.tmp" "$file"
    done
  done
done

python3 - "$output" <<'TABLE' >"$output/table.md"
import glob, json, os, sys

sizes = ["tiny", "small", "base", "large"]
rows = []
for path in glob.glob(os.path.join(sys.argv[1], "*.json")):
    size, method, precision = os.path.basename(path)[:-5].split("-", 1)[0], None, None
    method, precision = os.path.basename(path)[len(size) + 1:-5].rsplit("-", 1)
    with open(path) as file:
        rows.append((sizes.index(size), precision, method.replace("rep-", "") + "~" * method.startswith("rep-"),
                     size, method, json.load(file)))
print("| ViT | precision | method | step / plain forward | select | forward | backward | test, an image |"
      " GMAC a step | peak tensor MB | peak resident MB | of the matmul rate |")
print("|" + "---|" * 12)
for _, precision, _, size, method, r in sorted(rows, key=lambda row: row[:3]):
    p = r["phases"]
    print(f"| {size} | {precision} | `{method}` | {r['step_ratio']:.2f} | {p['select']:.2f} | {p['forward']:.2f} |"
          f" {p['backward']:.2f} | {r['eval_ratio']:.2f} | {r['macs_per_step'] / 1e9:,.1f} |"
          f" {r['peak_tensor_bytes'] / 1e6:,.0f} | {r['peak_rss_bytes'] / 1e6:,.0f} | {100 * r['matmul_fraction']:.0f} % |")
TABLE
cat "$output/table.md"
