#!/usr/bin/env bash
# Runs a table again, a published one or one of ours: says what data and weights are missing, runs every
# row as a process of its own (the same command goes on after a stop), and writes the table, beside the
# published figures where there are some.
#
# usage: scripts/reproduce.sh TABLE [options of rep sweep, e.g. --seeds 1,2,3 --jobs 2 --dry-run]
#
#   main       REP (arXiv 2406.04772): each prompt method with and without REP, one protocol
#              (Split CIFAR-100, Split ImageNet-R; ViT-L/16, ViT-Ti/16)
#   ablation   REP's ablation and sensitivity: REP-L2P with every pair of a merging and a dropping, none
#              of them included, with n = 4, 8, 10 and with least keep ratios .1, .5, .9
#              (Split ImageNet-R; ViT-L/16, ViT-Ti/16)
#   prompts    the prompt methods and their references, as each method's authors run it
#              (Split CIFAR-100; ViT-B/16 of several pre-trainings)
#   stream51   accuracy over tasks of prompt methods, streaming LDA and training on everything at once
#              (Stream-51; ViT-B/16, ViT-L/16, ViT-Ti/16)
#   tiny-rep   REP's budget (1,875 iterations a task) on all of CIFAR-100 with a ViT-Ti/16: prompt methods with
#              and without REP, class statistics, replay, bounds (configs/cifar100-tiny); days of a core
#   tiny-cps   the protocol of CPS-Prompt (arXiv 2604.07399), whose table has this very ViT-Ti/16
#              (configs/cifar100-tiny/cps)
#   tiny-dropping  what layer dropping costs twelve blocks, and which reading of it costs least: the first task
#              of tiny-rep at 600 iterations, L2P and DualPrompt; hours of a core
#   tiny-scoring   L2P and DualPrompt, tested among the classes seen and among all, on a part of CIFAR-100, 3 seeds
#   methods    every method, on a part of CIFAR-100 at the size that two cores finish (configs/table; ViT-Ti/16)
#   study      eight methods over three seeds, smaller still (configs/study; ViT-Ti/16)
#   parts      REP's ablation on the study's stream, with layer dropping's clock running as fast as a task is
#              short (ViT-Ti/16)
#
# Data and weights elsewhere: --set dataset.root=DIR --set backbone.weights=FILE.
# Runs go to results/reproduce/TABLE/, the table to results/reproduce/TABLE.md and .html. Finished rows of tiny-rep and
# tiny-cps are kept in results/TABLE/, and results/RESULTS.md is written from what is kept.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

table=${1:-}
case $table in
  -h | --help) print_help; exit 0 ;;
  main | ablation | prompts | stream51 | tiny-rep | tiny-cps | tiny-dropping | tiny-scoring | methods | study | parts) shift ;;
  *) echo "error: which table? main, ablation, prompts, stream51, tiny-rep, tiny-cps, tiny-dropping, tiny-scoring, methods, study or parts; see scripts/reproduce.sh --help" >&2
     exit 2 ;;
esac
given=("$@") overrides=()
for ((i = 1; i < $#; ++i)); do
  case ${!i} in
    --set) overrides+=(--set "${@:i+1:1}") ;;
    --set=*) overrides+=("${!i}") ;;
  esac
done
rep=build/release/rep
[[ -x $rep ]] || fail "$rep is not built; run scripts/setup.sh"
folder=results/reproduce/$table

# rows FOLDER CONFIG... [--set KEY=VALUE]... [--grid KEY=VALUES]...
# Checks what the rows need, or runs them, as the variable `pass` says.
rows() {
  local name=$1 argument
  shift
  if [[ $pass == run ]]; then
    "$rep" sweep "$@" --output "$folder/$name" "${given[@]}" || status=$?
    return
  fi
  local needs=()
  for argument in "$@"; do
    if [[ $argument == --grid || $argument == --seeds ]]; then break; fi
    needs+=("$argument")
  done
  needs+=("${overrides[@]}")
  "$rep" check "${needs[@]}" >/dev/null || missing=yes
}

# REP's table runs every method in one ViT-L/16, with and without REP under one protocol.
table_main() {
  local set method config
  local weights=weights/vit_large_patch16_224.augreg_in21k_ft_in1k.safetensors
  local large="backbone={name: vit_large_patch16_224, weights: $weights}"
  for set in cifar100 imagenet_r; do
    for method in l2p dualprompt coda_prompt hide_prompt convprompt; do
      config=configs/$set/rep-$method.yaml
      if [[ ! -e $config ]]; then
        if [[ $pass == check ]]; then say "no row of $method on $set: there is no $config"; fi
        continue
      fi
      rows "$set-rep-$method" "$config" --set "$large"
      rows "$set-$method" "$config" --set "$large" --set 'efficiency={}'
    done
  done
}

table_ablation() {
  local config=configs/imagenet_r/rep-l2p.yaml
  rows parts "$config" --grid efficiency.token_merging.kind=atom,tome,none \
    --grid efficiency.layer_dropping.kind=ald,pld,random,none
  rows n "$config" --grid efficiency.token_merging.n=4,8,10
  rows min_keep "$config" --grid efficiency.layer_dropping.min_keep=0.1,0.5,0.9
}

table_prompts() {
  local method
  for method in no_prompt linear_probe ncm l2p dualprompt coda_prompt hide_prompt convprompt; do
    rows "$method" "configs/cifar100/$method.yaml"
  done
}

table_stream51() {
  local method
  for method in l2p rep-l2p dualprompt rep-dualprompt slda ncm finetune joint; do
    rows "$method" "configs/stream51/$method.yaml"
  done
}

# In the order in which the rows say most for their hours. Each frozen feature is computed once for all rows.
table_tiny_rep() {
  local row
  for row in l2p rep-l2p dualprompt rep-dualprompt coda_prompt rep-coda_prompt \
    ncm ranpac slda fecam linear_probe er ewc generative_replay joint no_prompt \
    apt os_prompt os_prompt-pp cps_prompt rep-apt rep-os_prompt aper inflora sd_lora \
    hide_prompt rep-hide_prompt convprompt rep-convprompt finetune joint-vit ease; do
    rows "$row" "configs/cifar100-tiny/$row.yaml" --set "efficiency.query_cache=$folder/queries"
  done
}

table_tiny_cps() {
  local row
  for row in coda_prompt rep-coda_prompt cps_prompt coda_prompt-constant patch_dropout; do
    rows "$row" "configs/cifar100-tiny/cps/$row.yaml"
  done
}

# 0.003125 of 600 iterations is as much of a task as the published 0.001 of 1,875.
dropping() {  # NAME BASE MERGING DROPPING
  rows "$1" "configs/cifar100-tiny/$2.yaml" --set "name=$1" --set stream.stop_after=1 --set train.iterations=600 \
    --set "efficiency={token_merging: {$3}, layer_dropping: {$4}}"
}

table_tiny_dropping() {
  local base atom='kind: atom, n: 8' none='kind: none' ald='kind: ald, decay: 0.003125'
  for base in l2p dualprompt; do
    dropping "$base" $base "$none" "$none"
    dropping "$base-atom" $base "$atom" "$none"
    dropping "$base-rep" $base "$atom" "$ald"
    dropping "$base-backward_only" $base "$atom" "$ald, backward_only: true"
    dropping "$base-rescale" $base "$atom" "$ald, rescale: true"
    dropping "$base-exempt_first-6" $base "$atom" "$ald, exempt_first: 6"
    dropping "$base-min_keep-0.75" $base "$atom" "$ald, min_keep: 0.75"
    dropping "$base-min_keep-0.9" $base "$atom" "$ald, min_keep: 0.9"
    dropping "$base-pld" $base "$atom" "${ald/ald/pld}"
    dropping "$base-exempt_prompted" $base "$atom" "$ald, exempt_prompted: true"
    dropping "$base-backward_only-0.25" $base "$atom" "$ald, min_keep: 0.25, backward_only: true"
    dropping "$base-ald" $base "$none" "$ald"
  done
}

table_tiny_scoring() {
  local row classes
  for row in l2p dualprompt; do
    for classes in seen all; do
      rows "$row-$classes" "configs/cifar100-tiny/$row.yaml" --set "name=$row-$classes" --set "eval.classes=$classes" \
        --set dataset.limit_train=20 --set dataset.limit_test=10 --set train.epochs=3 --set train.iterations=0 \
        --set "efficiency.query_cache=$folder/queries" --seeds 1,2,3
    done
  done
}

table_methods() {
  local past='{name: er, buffer_size: 50}, {name: er, buffer_size: 100}, {name: er, buffer_size: 200}'
  past+=', {name: der, buffer_size: 100}, {name: derpp, buffer_size: 100}'
  past+=', {name: icarl, buffer_size: 100}, {name: gdumb, buffer_size: 100}'
  local parts='efficiency={}, {token_merging: {kind: atom, n: 8}, layer_dropping: {kind: ald}}'
  rows prompts configs/table/prompts.yaml --grid method.name=l2p,dualprompt,coda_prompt,hide_prompt --grid "$parts"
  # A ViT-Ti/16 has room for 48 orthogonal keys over all tasks.
  rows convprompt configs/table/prompts.yaml --set 'method={name: convprompt, kernels: 4}' --grid "$parts"
  rows frozen configs/table/frozen.yaml \
    --grid method.name=no_prompt,linear_probe,ncm,slda,ewc,si,lwf,pnn
  rows joint configs/table/frozen.yaml --set method.name=joint --set train.epochs=40 --set train.optimizer.lr=0.001
  rows past configs/table/frozen.yaml --grid "method=$past"
  rows generative configs/table/frozen.yaml --set method.name=generative_replay --set train.optimizer.lr=0.001
  rows ranpac configs/table/frozen.yaml --set 'method={name: ranpac, projection: 2000, first_task: none}'
  rows finetune configs/table/trained.yaml
  rows slca configs/table/trained.yaml --set method.name=slca \
    --set 'train.optimizer={name: sgd, lr: 0.01, momentum: 0.9, weight_decay: 0.0005}'
}

table_study() {
  rows methods configs/study/*.yaml --seeds 1,2,3
}

table_parts() {
  # 0.001 of 1,875 iterations, as published, is as much of a task as 0.047 of 40.
  local atom='token_merging: {kind: atom, n: 8}' ald='layer_dropping: {kind: ald, decay: 0.047'
  local parts="{$atom, $ald}}, {}, {token_merging: {kind: tome, n: 8}, $ald}}"
  parts+=", {$atom, layer_dropping: {kind: pld, decay: 0.047}}, {$atom, layer_dropping: {kind: random}}, {$ald}}"
  parts+=", {token_merging: {kind: atom, n: 4}, $ald}}, {token_merging: {kind: atom, n: 10}, $ald}}"
  parts+=", {$atom, $ald, min_keep: 0.1}}, {$atom, $ald, min_keep: 0.9}}, {$atom}"
  parts+=", {token_merging: {kind: atom, n: 8, proportional_attention: true}, $ald}}"
  rows parts configs/study/rep-l2p.yaml --grid "efficiency=$parts" --seeds 1
}

all_rows() {
  case $table in
    main) table_main ;;
    ablation) table_ablation ;;
    prompts) table_prompts ;;
    stream51) table_stream51 ;;
    tiny-rep) table_tiny_rep ;;
    tiny-cps) table_tiny_cps ;;
    tiny-dropping) table_tiny_dropping ;;
    tiny-scoring) table_tiny_scoring ;;
    methods) table_methods ;;
    study) table_study ;;
    parts) table_parts ;;
  esac
}

say "looking for the data and the weights"
pass=check missing=no
words=$(mktemp)
trap 'rm -f "$words"' EXIT
all_rows 2>"$words"
sort -u "$words" >&2  # many rows miss the same file
if [[ $missing == yes && " ${given[*]} " != *" --dry-run "* ]]; then
  fail "what is named above is missing; scripts/fetch.sh fetches it, or says where it is to be had"
fi

say "running the rows of $table into $folder"
pass=run status=0
all_rows
if [[ " ${given[*]} " == *" --dry-run "* ]]; then exit "$status"; fi
"$rep" report "$folder" --published --format markdown --output "$folder.md"
"$rep" report "$folder" --published --html "$folder.html"
if [[ $table == tiny-* ]]; then scripts/results_page.py --keep "$table" "$folder"; fi
say "the table is in $folder.md and, with pictures, in $folder.html"
exit "$status"
