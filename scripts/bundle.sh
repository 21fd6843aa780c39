#!/usr/bin/env bash
# Makes a folder that holds rep with every library it loads, and runs on a Debian 12 on which nothing is installed.
#
# usage: scripts/bundle.sh [--arm64] [--output DIR] [--test]
#
#   --arm64       of the program that scripts/test_arm64.sh built for 64-bit ARM
#   --output DIR  the folder (default: build/bundle/rep-x86_64 or rep-aarch64); it is made anew
#   --test        run it in an empty Debian 12, made with debootstrap, without a network: needs root
#
# DIR/bin/rep finds its libraries in DIR/lib, wherever DIR lies. The C library is the system's. Needs patchelf and, for
# --test, debootstrap, which are installed where missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

machine=x86_64 output='' test=no
while (($# > 0)); do
  case $1 in
    --arm64) machine=aarch64 ;;
    --output) output=${2:?"--output needs a folder"}; shift ;;
    --test) test=yes ;;
    -h | --help) print_help; exit 0 ;;
    *) echo "error: unknown option '$1'; see scripts/bundle.sh --help" >&2; exit 2 ;;
  esac
  shift
done
output=${output:-build/bundle/rep-$machine}
if [[ $machine == x86_64 ]]; then
  program=build/release/rep strip=strip root=''
  [[ -x $program ]] || fail "$program is not built; run scripts/setup.sh"
else
  program=build/arm64/rep strip=aarch64-linux-gnu-strip root=$PWD/build/arm64-root
  [[ -x $program ]] || fail "$program is not built; run scripts/test_arm64.sh --install --build-only"
fi

need() {
  command -v "$1" >/dev/null && return
  say "installing $1"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$1" >/dev/null ||
    fail "$1 is missing, and apt-get cannot install it here"
}
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

# Part of the C library, which has to be the system's.
is_of_libc() {
  [[ $1 =~ ^(libc|libm|libdl|librt|libpthread|libresolv|libutil|libmvec|libnsl|libanl)\.so || $1 == ld-linux* ]]
}

rm -rf "$output"
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
"$strip" --strip-unneeded "$output/bin/rep" "$output"/lib/*
# An old-style RPATH, which holds for the libraries' own libraries, too.
patchelf --force-rpath --set-rpath "\$ORIGIN/../lib" "$output/bin/rep"
for library in "$output"/lib/*; do patchelf --force-rpath --set-rpath "\$ORIGIN" "$library"; done
cp -r configs "$output/configs"
cp README.md LICENSE "$output/"
say "$output: $(du -sm "$output" | cut -f 1) MB, $(find "$output/lib" -type f | wc -l) libraries; packed" \
  "$(tar -C "$(dirname "$output")" -c "$(basename "$output")" | xz -T0 -2 | wc -c | awk '{ print int($1 / 1e6) }') MB"

if [[ $test == yes ]]; then
  [[ -z $root ]] || fail "--test runs on this machine's processor only"
  need debootstrap
  empty=build/bundle/debian
  if [[ ! -d $empty ]]; then
    say "making an empty Debian 12"
    debootstrap --variant=minbase bookworm "$empty.part" >build/bundle/debootstrap.log 2>&1 ||
      fail "debootstrap: $(tail -n 1 build/bundle/debootstrap.log)"
    mv "$empty.part" "$empty"
  fi
  rm -rf "$empty/rep" && cp -r "$output" "$empty/rep"
  mkdir -p "$empty/proc" "$empty/tmp"
  mountpoint -q "$empty/proc" || mount --bind /proc "$empty/proc"
  trap 'umount "$empty/proc"' EXIT
  say "a short experiment in the empty Debian"
  chroot "$empty" /bin/sh -c 'cd /rep && bin/rep --version && bin/rep run configs/quickstart.yaml --output /tmp/run \
    --set backbone.weights=random --set stream.tasks=2 --set train.epochs=1 --limit-train 8 --limit-test 4' ||
    fail "the bundle does not run in an empty Debian 12"
fi
