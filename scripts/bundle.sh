#!/usr/bin/env bash
# Makes a folder that holds rep with every library it loads, and runs on a Debian 12 on which nothing is installed.
#
# usage: scripts/bundle.sh [--arm64] [--rep PROGRAM] [--output DIR] [--pack] [--test]
#
#   --arm64        of the program that scripts/test_arm64.sh built for 64-bit ARM
#   --rep PROGRAM  of this program (default: build/release/rep, or build/arm64/rep)
#   --output DIR   the folder (default: build/bundle/rep-x86_64 or rep-aarch64); it is made afresh
#   --pack         write DIR.tar.xz, too
#   --test         run it in an empty Debian 12, made with debootstrap, without a network: needs root
#
# DIR/bin/rep finds its libraries in DIR/lib, wherever DIR lies; scripts/bundle_libraries.py says which are there. The C
# library is the system's. Needs patchelf and, for --test, debootstrap, which are installed where missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

machine=x86_64 program='' output='' pack=no test=no
while (($# > 0)); do
  case $1 in
    --arm64) machine=aarch64 ;;
    --rep) program=${2:?"--rep needs a program"}; shift ;;
    --pack) pack=yes ;;
    --output) output=${2:?"--output needs a folder"}; shift ;;
    --test) test=yes ;;
    -h | --help) print_help; exit 0 ;;
    *) echo "error: unknown option '$1'; see scripts/bundle.sh --help" >&2; exit 2 ;;
  esac
  shift
done
output=${output:-build/bundle/rep-$machine}
if [[ $machine == x86_64 ]]; then
  program=${program:-build/release/rep} tools='' root=''
  [[ -x $program ]] || fail "$program is not built; run scripts/setup.sh"
else
  program=${program:-build/arm64/rep} tools=aarch64-linux-gnu- root=$PWD/build/arm64-root
  [[ -x $program ]] || fail "$program is not built; run scripts/test_arm64.sh --install --build-only"
fi

need patchelf

# The libraries that the dynamic linker loads for the program: "name => path" a line.
libraries() {
  if [[ -z $root ]]; then
    ldd "$program"
  else
    qemu-aarch64-static -L "$root" -cpu max "$root/lib/ld-linux-aarch64.so.1" \
      --library-path "$root/usr/lib/aarch64-linux-gnu" --list "$program"
  fi | sed -n 's/^[[:space:]]*\([^ ]*\) => \([^ ]*\).*/\1 \2/p'
}

make_afresh "$output"
mkdir -p "$output"/{bin,lib}
cp "$program" "$output/bin/rep"
missing=$(libraries | awk '$2 == "not" { print $1 }')
[[ -z $missing ]] || fail "libraries are missing on this machine: $missing"
while read -r name path; do
  is_of_libc "$name" && continue
  if [[ -n $root && $path != "$root"/* ]]; then path=$root$path; fi
  cp -L "$path" "$output/lib/$name"
done < <(libraries)
chmod u+w "$output"/lib/*
"${tools}strip" --strip-unneeded "$output/bin/rep" "$output"/lib/*
scripts/bundle_libraries.py --compiler "${tools}gcc" "$output/bin/rep" "$output/lib"
cp -r configs "$output/configs"
cp README.md LICENSE "$output/"
say "$output: $(du -sm "$output" | cut -f 1) MB, $(find "$output/lib" -type f | wc -l) libraries"
if [[ $pack == yes ]]; then
  tar -C "$(dirname "$output")" -c "$(basename "$output")" | xz -T0 -2 >"$output.tar.xz"
  say "$output.tar.xz: $(du -sm "$output.tar.xz" | cut -f 1) MB"
fi

if [[ $test == yes ]]; then
  [[ -z $root ]] || fail "--test runs on this machine's processor only"
  need debootstrap
  empty=build/bundle/debian
  make_debian "$empty"
  rm -rf "$empty/rep" "$empty/tmp/run" "$empty/tmp/images"
  cp -r "$output" "$empty/rep"
  mountpoint -q "$empty/proc" || mount --bind /proc "$empty/proc"
  trap 'umount "$empty/proc"' EXIT
  # Every symbol is looked up at the start: one that has no library fails here, not in the middle of a run.
  say "a short experiment in the empty Debian"
  unshare --net chroot "$empty" env -i LD_BIND_NOW=1 /bin/sh -e -c 'cd /rep && bin/rep --version
    bin/rep run configs/quickstart.yaml --output /tmp/run --set backbone.weights=random --set stream.tasks=2 \
      --set train.epochs=1 --limit-train 8 --limit-test 4
    mkdir -p /tmp/images/one /tmp/images/two
    bin/rep check configs/quickstart.yaml --preview /tmp/images/one/1.png --set backbone.weights=random >/dev/null
    cp /tmp/images/one/1.png /tmp/images/one/2.png && cp /tmp/images/one/*.png /tmp/images/two/
    bin/rep check configs/quickstart.yaml --decode --set backbone.weights=random --set stream.tasks=2 \
      --set "dataset={name: image_folder, root: /tmp/images, test_share: 0.5}"' ||
    fail "the bundle does not run in an empty Debian 12"
fi
