#!/usr/bin/env bash
# Fetches data sets and pre-trained weights into datasets/ and weights/, and checks them.
#
# usage: scripts/fetch.sh cifar100 | imagenet_r | stream51 | weights [tiny|small|base|large|base_in21k]... | imagenet
#
# A fetch that was cut goes on where it stopped; what is there already is only checked. Every set's
# licence and citation are printed. ImageNet itself asks for an account: `imagenet` says what to do.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

# fetch URL FILE CHECKSUM: CHECKSUM is md5:HEX, sha256:HEX, or `lfs` for the SHA-256 that the server of
# a large-file store announces. The file appears under its name only when it is right.
fetch() {
  local url=$1 file=$2 checksum=$3 kind want got
  if [[ $checksum == lfs ]]; then
    want=$(curl --silent --show-error --fail --head "$url" |
      tr -d '\r' | awk 'tolower($1) == "x-linked-etag:" { gsub(/"/, "", $2); print $2 }' | tail -n 1)
    [[ $want =~ ^[0-9a-f]{64}$ ]] || fail "$url: the server announces no SHA-256; fetch the file by hand"
    checksum=sha256:$want
  fi
  kind=${checksum%%:*} want=${checksum#*:}
  mkdir -p "$(dirname "$file")"
  if [[ ! -f $file ]]; then
    say "fetching $url"
    curl --fail --location --retry 3 --continue-at - --output "$file.part" "$url" ||
      fail "$url: could not be fetched; run this again to go on, or fetch it by hand to $file"
    check "$kind" "$want" "$file.part" ||
      fail "$file.part: its $kind is not $want; remove it and run this again"
    mv "$file.part" "$file"
  else
    check "$kind" "$want" "$file" || fail "$file: its $kind is not $want; remove it and run this again"
  fi
  say "$file is whole ($kind)"
}

check() { # kind, expected, file
  local got
  got=$("${1}sum" "$3" | cut -d' ' -f1)
  [[ $got == "$2" ]]
}

cifar100() {
  cat <<'TEXT'
CIFAR-100. Cite: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
Terms: published for research, without a licence text.
TEXT
  fetch https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz datasets/cifar-100-binary.tar.gz \
    md5:03b5dce01913d631647c71ecec9e9cb8
  tar -xzf datasets/cifar-100-binary.tar.gz -C datasets
  expect_bytes datasets/cifar-100-binary/train.bin $((50000 * 3074))
  expect_bytes datasets/cifar-100-binary/test.bin $((10000 * 3074))
}

imagenet_r() {
  cat <<'TEXT'
ImageNet-R. Cite: D. Hendrycks et al., The Many Faces of Robustness, ICCV 2021 (arXiv 2006.16241).
Terms: MIT licence for the collection; the pictures' rights are with their makers. Its authors publish no
checksum: the archive is checked by its count of 200 classes and 30,000 images.
TEXT
  local archive=datasets/imagenet-r.tar count
  if [[ ! -d datasets/imagenet-r ]]; then
    mkdir -p datasets
    curl --fail --location --retry 3 --continue-at - --output "$archive" \
      https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar ||
      fail "imagenet-r.tar could not be fetched; run this again to go on"
    tar -xf "$archive" -C datasets
  fi
  count=$(find datasets/imagenet-r -mindepth 2 -type f | wc -l)
  ((count == 30000)) || fail "datasets/imagenet-r holds $count images instead of 30,000; remove it and run this again"
  say "datasets/imagenet-r is whole: 30,000 images"
}

stream51() {
  cat <<'TEXT'
Stream-51. Cite: R. Roady et al., Stream-51: Streaming Classification and Novelty Detection from Videos,
CVPR Workshops 2020. Terms: for research; the videos' rights are with their makers.
TEXT
  fetch http://klab.cis.rit.edu/files/Stream-51.zip datasets/Stream-51.zip \
    md5:5f34d542b71af7e5ecb2226d1bc7297c
  command -v unzip >/dev/null || fail "unzip is missing; install it and run this again"
  unzip -q -n datasets/Stream-51.zip -d datasets
}

weights() {
  cat <<'TEXT'
ViT weights. Cite: A. Steiner et al., How to train your ViT? (arXiv 2106.10270), and A. Dosovitskiy et al.
(arXiv 2010.11929). Terms: Apache-2.0.
TEXT
  local size name
  for size in "${@:-tiny}"; do
    case $size in
      tiny | small | base | large)
        name=vit_${size}_patch16_224.augreg_in21k_ft_in1k
        fetch "https://huggingface.co/timm/$name/resolve/main/model.safetensors" \
          "weights/$name.safetensors" lfs
        ;;
      base_in21k)
        curl --fail --location --retry 3 --continue-at - --create-dirs --output weights/ViT-B_16.npz \
          https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz ||
          fail "ViT-B_16.npz could not be fetched; run this again to go on"
        say "weights/ViT-B_16.npz: no checksum is published; 'rep inspect' reads every tensor of it"
        ;;
      *) fail "unknown size '$size'; known: tiny small base large base_in21k" ;;
    esac
  done
}

imagenet() {
  cat <<'TEXT'
ImageNet-1k cannot be fetched by a script. Cite: O. Russakovsky et al., ImageNet Large Scale Visual
Recognition Challenge, IJCV 2015. Terms: non-commercial research.
1. Register at image-net.org and fetch ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar.
2. Unpack them so that datasets/imagenet/train/<wnid>/*.JPEG and datasets/imagenet/val/<wnid>/*.JPEG
   hold the images; only the classes of the chosen definition are needed.
3. rep check configs/imagenet_subset/l2p.yaml says what is missing.
TEXT
}

expect_bytes() {
  local bytes
  bytes=$(stat -c %s "$1")
  ((bytes == $2)) || fail "$1 has $bytes bytes instead of $2; remove it and run this again"
}

case ${1:-} in
  cifar100 | imagenet_r | stream51 | imagenet) "$1" ;;
  weights) shift; weights "$@" ;;
  -h | --help) print_help ;;
  *) echo "error: what to fetch? see scripts/fetch.sh --help" >&2; exit 2 ;;
esac
