#!/usr/bin/env bash
# Makes rep's Debian package of the release build.
#
# usage: scripts/package.sh [--output DIR] [--test]
#
#   --output DIR  where the package goes (default: build/package)
#   --test        install it with all it depends on in an empty Debian 12, and run it there: needs root, and
#                 downloads about 400 MB with this machine's apt
#
# What it depends on is read from the program's libraries (dpkg-shlibdeps), so it fits the Debian that it was built
# on. Needs dpkg-dev and file and, for --test, debootstrap, which are installed where missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

output=build/package test=no
while (($# > 0)); do
  case $1 in
    --output) output=${2:?"--output needs a folder"}; shift ;;
    --test) test=yes ;;
    -h | --help) print_help; exit 0 ;;
    *) echo "error: unknown option '$1'; see scripts/package.sh --help" >&2; exit 2 ;;
  esac
  shift
done
[[ -x build/release/rep ]] || fail "build/release/rep is not built; run scripts/setup.sh"

need dpkg-shlibdeps dpkg-dev
need file file

mkdir -p "$output"
rm -f "$output"/rep_*.deb
cpack=$(dirname "$(find_cmake)")/cpack
"$cpack" --config build/release/CPackConfig.cmake -B "$output" >"$output/cpack.log" 2>&1 ||
  fail "cpack failed: $(grep -m 1 -i error "$output/cpack.log" || tail -n 1 "$output/cpack.log")"
rm -rf "$output/_CPack_Packages"
package=$(echo "$output"/rep_*.deb)
[[ -f $package ]] || fail "cpack made no package; see $output/cpack.log"

contents=$(dpkg-deb -c "$package" | awk '{ print $6 }')
for file in bin/rep share/rep/configs/quickstart.yaml share/rep/configs/rep.schema.json share/man/man1/rep.1 \
  share/bash-completion/completions/rep share/zsh/vendor-completions/_rep share/fish/vendor_completions.d/rep.fish \
  share/doc/rep/README.md share/doc/rep/docs/configuration.md share/doc/rep/copyright; do
  grep -qxF "./usr/$file" <<<"$contents" || fail "$package holds no /usr/$file"
done
depends=$(dpkg-deb -f "$package" Depends)
for library in libtorch libopencv-core libyaml-cpp libzip libssl; do
  [[ $depends == *$library* ]] || fail "$package does not depend on $library: $depends"
done
say "$package: $(du -k "$package" | cut -f 1) KiB, $(wc -l <<<"$contents") entries; depends on $depends"

# Downloads, with this machine's apt, what `package` needs in the Debian at $1, into $2.
download_for() {
  local root=$1 archives=$2
  mkdir -p "$archives/partial"
  apt-get -qq -y --no-install-recommends --download-only -o Dir::State::status="$PWD/$root/var/lib/dpkg/status" \
    -o Dir::Cache::archives="$PWD/$archives" -o APT::Sandbox::User=root -o Debug::NoLocking=1 \
    install "$(realpath "$package")" libopenblas0-openmp >/dev/null
}

if [[ $test == yes ]]; then
  need debootstrap debootstrap
  empty=build/package/debian
  make_debian "$empty"
  trap 'umount "$empty/proc" 2>/dev/null || true' EXIT
  mountpoint -q "$empty/proc" || mount --bind /proc "$empty/proc"
  if ! chroot "$empty" dpkg -s libtorch1.13 >/dev/null 2>&1; then
    download_for "$empty" build/package/archives || fail "apt-get cannot download what $package depends on"
  fi
  rm -rf "$empty/packages"
  mkdir -p "$empty/packages"
  find build/package/archives -maxdepth 1 -name '*.deb' -exec cp -t "$empty/packages" {} + 2>/dev/null || true
  cp "$package" "$empty/packages/"
  say "installing it in the empty Debian"
  chroot "$empty" env DEBIAN_FRONTEND=noninteractive sh -c 'dpkg --unpack /packages/*.deb && dpkg --configure -a' \
    >build/package/install.log 2>&1 || fail "it does not install; see build/package/install.log"
  chroot "$empty" apt-get check >/dev/null 2>&1 || fail "a dependency of $package is not there after its installation"
  say "a short experiment there"
  chroot "$empty" /bin/sh -c 'set -e; cd /tmp; rm -rf configs results; cp -r /usr/share/rep/configs .; rep --version
    rep check configs/quickstart.yaml --set backbone.weights=random
    rep run configs/quickstart.yaml --output results/run --set backbone.weights=random --set stream.tasks=2 \
      --set train.epochs=1 --limit-train 8 --limit-test 4
    rep report results/run' || fail "the installed package does not run"
fi
