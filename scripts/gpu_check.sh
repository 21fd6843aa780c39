#!/usr/bin/env bash
# What there is to find out on a first machine with a GPU, within eight minutes: builds rep against the LibTorch inside the
# installed PyTorch, runs it, and leaves a report.
#
# usage: scripts/gpu_check.sh --collect DIR
#        scripts/gpu_check.sh [--packages DIR] [--data DIR --weights FILE] [--minutes N] [--output DIR] [--cpu]
#
#   --collect DIR   on a Debian 12 where scripts/setup.sh has run: make the folder of packages (47 MB) that a machine
#                   without a network builds from (scripts/gpu_packages.sh says of what), and stop
#   --packages DIR  build from that folder (default: from the system's packages)
#   --data DIR      CIFAR-100's binary files, and
#   --weights FILE  a ViT-Ti/16's weights, for a run of configs/cifar100-tiny/rep-l2p.yaml
#   --minutes N     for all (default: 8); every step has a limit, and one that fails or is cut is recorded, and the rest goes on
#   --output DIR    where report.md, report.json and log.txt go (default: build/gpu-check)
#   --cpu           the same steps in small on the CPU, which shows that this script works
#
# Needs a python3 with PyTorch 2.11 or newer (PYTHON names another python3), CUDA's compiler, which LibTorch's CMake files
# ask for, and CMake, ninja and a C++ compiler. Steps: configure, build, the tests labelled gpu, the quickstart, rep bench
# of L2P and REP-L2P on ViT-Ti, B and L (fp32 with TF32 off and on, and bf16; with and without CUDA graphs), and the run.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

packages='' data='' weights='' minutes='' output=build/gpu-check device=cuda
while (($# > 0)); do
  case $1 in
    --collect) exec scripts/gpu_packages.sh "${2:?"--collect needs a folder"}" ;;
    --packages) packages=$(realpath "${2:?"--packages needs a folder"}"); shift ;;
    --data) data=${2:?"--data needs a folder"}; shift ;;
    --weights) weights=${2:?"--weights needs a file"}; shift ;;
    --minutes) minutes=${2:?"--minutes needs a number"}; shift ;;
    --output) output=${2:?"--output needs a folder"}; shift ;;
    --cpu) device=cpu ;;
    -h | --help) print_help; exit 0 ;;
    *) echo "error: unknown option '$1'; see scripts/gpu_check.sh --help" >&2; exit 2 ;;
  esac
  shift
done
if [[ -z $minutes ]]; then [[ $device == cuda ]] && minutes=8 || minutes=120; fi
[[ $minutes =~ ^[1-9][0-9]*$ ]] || fail "--minutes needs a number from 1 on, not '$minutes'"
[[ -z $packages || -f $packages/packages.cmake ]] || fail "$packages has no packages.cmake; make it with --collect"
python=${PYTHON:-python3}
torch=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)') || fail "$python has no PyTorch"
folder=$(build_folder release "$torch")
cmake=$(find_cmake)
work=$output/steps
make_afresh "$work"

# step NAME SECONDS COMMAND...: within what is left of the time; its output, code and seconds are recorded.
step() {
  local name=$1 limit=$2 left begin=$SECONDS code=0
  shift 2
  left=$((minutes * 60 - SECONDS))
  if ((left < limit)); then limit=$left; fi
  if ((limit < 3)); then
    say "$name: no time left"
    code=none
  else
    say "$name (at most $limit s)"
    timeout --signal=INT --kill-after=10 "$limit" "$@" >"$work/$name.out" 2>"$work/$name.log" || code=$?
    [[ $code == 0 ]] || { say "$name: exit code $code"; tail -n 3 "$work/$name.log"; }
  fi
  printf '%s\t%s\t%s\t%s\n' "$name" "$code" $((SECONDS - begin)) "$*" >>"$work/steps.tsv"
  [[ $code == 0 ]]
}

# bench METHOD SIZE PRECISION GRAPHS: one row; PRECISION tf32 is fp32 with LibTorch's leave to multiply in TF32.
bench() {
  local config=configs/bench/large-l2p.yaml environment=(NVIDIA_TF32_OVERRIDE=0) precision=$3
  if [[ $1 == rep-l2p ]]; then config=configs/bench/large-rep-l2p.yaml; fi
  if [[ $3 == tf32 ]]; then environment=(TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1) precision=fp32; fi
  step "bench-$1-$2-$3-graphs-$4" 45 env "${environment[@]}" "$folder/rep" bench "$config" --steps "$steps" \
    --warmup "$warmup" --json --set device=$device --set backbone.name="vit_$2_patch16_224" --set precision="$precision" \
    --set backbone.graphs="$4" --set dataset.train_per_class=16 || true
}

configuring=("$cmake" --preset release -B "$folder" -DCMAKE_PREFIX_PATH="$torch")
if [[ -n $packages ]]; then configuring+=(-C "$packages/packages.cmake"); fi
if [[ $device == cuda ]]; then
  step gpu 20 nvidia-smi || true
  # Of this GPU only; otherwise LibTorch's CMake files compile a program that looks for it.
  TORCH_CUDA_ARCH_LIST=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 || true)
  export TORCH_CUDA_ARCH_LIST
  sizes=(tiny base large) precisions=(fp32 bf16 tf32) graphs=(false true) steps=20 warmup=5 short=() build_limit=300
  tests=(ctest -L '^gpu$')
else
  sizes=(tiny) precisions=(fp32 bf16) graphs=(false) steps=1 warmup=0 build_limit=$((minutes * 60))
  short=(--set train.iterations=2 --set stream.tasks=2 --limit-train 32 --limit-test 8)
  tests=(ctest -R '^(device_images|recorded_passes)_test$')
fi
# A build that fails is the last step: nothing can run.
if step configure 90 "${configuring[@]}" && step build "$build_limit" "$cmake" --build "$folder" \
  --target rep device_images_test recorded_passes_test -j "${CMAKE_BUILD_PARALLEL_LEVEL:-$(choose_jobs)}"; then
  step tests 120 "$(dirname "$cmake")/${tests[0]}" --test-dir "$folder" --output-on-failure --no-tests=error \
    "${tests[@]:1}" || true
  step quickstart 90 "$folder/rep" run configs/quickstart.yaml --output "$work/quickstart" --set device=$device || true
  for graph in "${graphs[@]}"; do
    for size in "${sizes[@]}"; do
      for method in l2p rep-l2p; do bench "$method" "$size" bf16 "$graph"; bench "$method" "$size" fp32 "$graph"; done
    done
    # The real run goes before the rows that may not fit into the time.
    if [[ $graph == "${graphs[0]}" && -n $data && -n $weights ]]; then
      step tiny-rep 120 "$folder/rep" run configs/cifar100-tiny/rep-l2p.yaml --output "$work/tiny-rep" \
        --set device=$device --set dataset.root="$data" --set backbone.weights="$weights" "${short[@]}" || true
    fi
  done
  if [[ " ${precisions[*]} " == *" tf32 "* ]]; then
    for graph in "${graphs[@]}"; do
      for size in "${sizes[@]}"; do
        for method in l2p rep-l2p; do bench "$method" "$size" tf32 "$graph"; done
      done
    done
  fi
fi
"$python" scripts/gpu_report.py "$work" "$output"
for log in "$work"/*.log; do echo "==== ${log##*/}"; tail -n 60 "$log"; done >"$output/log.txt"
say "the report is $output/report.md"
