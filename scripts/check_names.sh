#!/usr/bin/env bash
# Compiles each library as ONE unit, without making code of it. What is joined shares its unnamed namespaces, and the
# build joins sources by eights in an order that any new file moves: two files that call different things alike must
# be found out before they meet. Minutes and some 3 GB: none of ctest's, but .ci/run runs it.
#
# usage: scripts/check_names.sh [BUILD]     (default: build/release, configured before)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case ${1:-} in
  -h | --help) print_help; exit 0 ;;
  -*) echo "error: unknown option '$1'; see scripts/check_names.sh --help" >&2; exit 2 ;;
esac
build=${1:-build/release}
[[ -f $build/compile_commands.json ]] || fail "$build is not configured; run cmake --preset release"
unit=$(mktemp -d)
trap 'rm -rf "$unit"' EXIT

# names_of LIBRARY: its sources and the flags that they are compiled with, but for what one of them alone has.
python3 - "$build" "$unit" <<'PYTHON'
import json, os, re, shlex, sys
build, unit = sys.argv[1:]
root = os.getcwd()
listed = open("CMakeLists.txt").read()
commands = {entry["file"]: shlex.split(entry["command"])
            for entry in json.load(open(os.path.join(build, "compile_commands.json")))}
for library in ("rep_core", "rep_learning"):
    block = re.search(r"add_library\(%s OBJECT\s(.*?)\)" % library, listed, re.S).group(1)
    sources = [os.path.join(root, name) for name in re.findall(r"src/\S+\.cpp", block)]
    command = next(c for f, c in commands.items() if "/%s.dir/" % library in " ".join(c))
    flags, i = [], 1
    while i < len(command):
        if command[i] in ("-o", "-c", "-include", "-Xclang"):
            i += 2
            continue
        if command[i] == "-isystem":
            flags += command[i:i + 2]
            i += 2
            continue
        if not command[i].startswith("-Winvalid-pch") and not command[i].endswith(".cpp"):
            flags.append(command[i])
        i += 1
    with open(os.path.join(unit, library + ".cpp"), "w") as file:
        file.writelines('#include "%s"\n' % source for source in sources)
    with open(os.path.join(unit, library + ".sh"), "w") as file:
        file.write(" ".join(map(shlex.quote, [command[0], *flags, "-fsyntax-only", library + ".cpp"])) + "\n")
PYTHON

for library in rep_core rep_learning; do
  (cd "$unit" && bash "$library.sh") || { echo "$library: names of two of its sources meet" >&2; exit 1; }
  echo "$library: one unit"
done
