# Sourced by the other scripts, from the root of the repository: messages, and where builds lie.
# shellcheck shell=bash

say() { echo "==> $*"; }

fail() {
  echo "error: $*" >&2
  exit 1
}

# Help is a script's first comment, from its second line on.
print_help() { sed -n '2,/^[^#]/ { s/^# \{0,1\}//p }' "$0"; }

# Whether version $1 is at least $2.
version_at_least() { [[ $(printf '%s\n' "$2" "$1" | sort --version-sort | head -n 1) == "$2" ]]; }

# Prints a CMake that works and is new enough for CMakeLists.txt: the one on PATH, or else Debian's.
find_cmake() {
  local candidate version
  for candidate in "$(command -v cmake || true)" /usr/bin/cmake; do
    [[ -n $candidate ]] || continue
    version=$("$candidate" --version 2>/dev/null | sed -n 's/^cmake version //p') || continue
    if [[ -n $version ]] && version_at_least "$version" 3.22; then
      echo "$candidate"
      return
    fi
  done
  fail "no working CMake of version 3.22 or newer; install Debian's package 'cmake'"
}

# Prints the folder of TorchConfig.cmake under $1: a LibTorch, or Python's torch.utils.cmake_prefix_path.
torch_config_folder() {
  local folder
  for folder in "$1"/share/cmake/Torch "$1"/Torch "$1"/lib/cmake/Torch "$1"/lib/*/cmake/Torch; do
    if [[ -f $folder/TorchConfig.cmake ]]; then
      echo "$folder"
      return
    fi
  done
  fail "no LibTorch in '$1': TorchConfig.cmake is not under share/cmake/Torch there;" \
    "give the folder of an unpacked LibTorch or Python's torch.utils.cmake_prefix_path"
}

# Prints the version of the LibTorch in $1, e.g. 2.13.0.
torch_version() {
  local folder
  folder=$(torch_config_folder "$1") || exit 1
  sed -n 's/^set(PACKAGE_VERSION "\([0-9.]*\).*/\1/p' "$folder/TorchConfigVersion.cmake"
}

# Prints the build folder of preset $1 with the LibTorch in $2 ("": the system's).
build_folder() {
  local preset=$1 torch=$2 version suffix=
  if [[ -z $torch ]]; then
    echo "build/$preset"
    return
  fi
  version=$(torch_version "$torch") || exit 1
  if [[ $preset != release ]]; then suffix="-$preset"; fi
  echo "build/torch-$version-$(realpath "$torch" | sha256sum | cut -c 1-6)$suffix"
}

# Makes an empty Debian 12 in folder $1 with debootstrap, from the mirror that this machine's apt uses, if it is not
# there yet. Needs root.
make_debian() {
  local folder=$1 mirror
  [[ ! -d $folder ]] || return 0
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 2>/dev/null |
    sed -n 's/ \(bookworm\|stable\)$//p' | head -n 1)
  say "making an empty Debian 12"
  rm -rf "$folder.part"
  debootstrap --variant=minbase bookworm "$folder.part" ${mirror:+"$mirror"} >"$folder.log" 2>&1 ||
    fail "debootstrap: $(tail -n 1 "$folder.log")"
  mv "$folder.part" "$folder"
}

# Runs a command as root; a machine in CI has nobody to type a password.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo ${CI:+-n} "$@"
  else
    return 1
  fi
}

# need COMMAND [PACKAGE]: installs Debian's package, of the same name where none is given, unless the command is there.
need() {
  command -v "$1" >/dev/null && return
  local package=${2:-$1}
  say "installing $package"
  as_root apt-get -qq update >/dev/null || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$package" >/dev/null ||
    fail "$package is missing, and apt-get cannot install it here"
}

# Makes folder $1 afresh. One that holds anything that was not made here stays, and ends the script.
make_afresh() {
  if [[ -e $1 && ! -e $1/.made-by-rep && -n $(ls -A "$1" 2>&1) ]]; then
    fail "$1 is there and was not made by this script; name another folder, or remove it"
  fi
  rm -rf "$1"
  mkdir -p "$1"
  touch "$1/.made-by-rep"
}

# Whether library $1 is part of the C library, which has to be the system's.
is_of_libc() {
  [[ $1 =~ ^(libc|libm|libdl|librt|libpthread|libresolv|libutil|libmvec|libnsl|libanl)\.so || $1 == ld-linux* ]]
}

# How many files to compile at once: one takes up to 1.5 GB, so as many as fit into memory, and no more than there are
# cores.
choose_jobs() {
  local cores kib limit fit
  cores=$(nproc)
  kib=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || true)  # of a container, in bytes, or "max"
  if [[ $limit =~ ^[0-9]+$ ]] && ((limit / 1024 < kib)); then kib=$((limit / 1024)); fi
  fit=$((kib / (1536 * 1024)))
  echo $((fit < 1 ? 1 : fit < cores ? fit : cores))
}
