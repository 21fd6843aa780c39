#!/usr/bin/env python3
"""Leaves in a folder of libraries only those that a program uses, and makes them find each other there.

usage: scripts/bundle_libraries.py PROGRAM FOLDER [--compiler CC] [--keep-named]

FOLDER holds all that the dynamic linker loads for PROGRAM, under the names by which it is asked for. A library stays when
a symbol that PROGRAM or a library that stays lacks is found in it first (--keep-named: or when PROGRAM names it); what
goes is struck from the others' lists.
GDAL and GDCM (maps, DICOM), which OpenCV's decoders ask for and rep never lets it use, become stand-ins made with CC
(gcc), whose functions do nothing: they would bring a hundred libraries of their own. Needs readelf and patchelf. scripts/bundle.sh and
scripts/gpu_packages.sh call this.
"""
import argparse
import os
import subprocess
import sys
import tempfile

STAND_INS = ("libgdal.", "libgdcm")
FUNCTIONS = ("FUNC", "IFUNC")


def readelf(*arguments):
    return subprocess.run(["readelf", "-W", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


def needed(path):
    return [line.split("[")[1].split("]")[0] for line in readelf("-d", path) if "(NEEDED)" in line]


def symbols(path):
    """Name -> type of what is defined in a file and could be asked of it, and the names that it lacks."""
    defined, lacking = {}, set()
    for line in readelf("--dyn-syms", path):
        field = line.split()
        if len(field) < 8 or field[0] == "Num:" or field[4] not in ("GLOBAL", "WEAK", "UNIQUE"):
            continue
        name = field[7].replace("@@", "@")
        if field[6] != "UND":
            defined[name] = defined[name.split("@")[0]] = field[3]
        elif field[4] == "GLOBAL":
            lacking.add(name)
    return defined, lacking


class Bundle:
    def __init__(self, program, folder, keep_named):
        self.program = program
        self.paths = {name: os.path.join(folder, name) for name in os.listdir(folder) if ".so" in name}
        self.kept = [name for name in needed(program) if keep_named and name in self.paths]
        self.read()

    def read(self):
        self.needed = {name: needed(path) for name, path in self.paths.items()}
        self.symbols = {name: symbols(path) for name, path in self.paths.items()}

    def order(self):
        """The libraries in the order in which the dynamic linker searches them: breadth first."""
        found, queue = [], needed(self.program)
        while queue:
            name = queue.pop(0)
            if name in self.paths and name not in found:
                found.append(name)
                queue += self.needed[name]
        return found

    def used(self):
        """Library -> the names of symbols for which it is used."""
        order, used = self.order(), {name: set() for name in self.kept}
        queue = [symbols(self.program)[1]] + [self.symbols[name][1] for name in self.kept]
        while queue:
            for symbol in queue.pop():
                for name in order:
                    if symbol in self.symbols[name][0]:
                        if name not in used:
                            used[name] = set()
                            queue.append(self.symbols[name][1])
                        used[name].add(symbol)
                        break
        return used

    def replace(self, compiler):
        """Makes stand-ins of those in STAND_INS of which only functions are used."""
        for name, wanted in self.used().items():
            if not name.startswith(STAND_INS):
                continue
            others = set().union(*(lacking for other, (_, lacking) in self.symbols.items()
                                   if not other.startswith(STAND_INS)))
            kinds = {self.symbols[name][0][symbol] for symbol in wanted & others}
            if any("@" in symbol for symbol in wanted) or not kinds <= set(FUNCTIONS):
                sys.exit(f"error: {name} holds more than functions that are asked for; no stand-in can replace it")
            with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
                source.writelines(f"void* {symbol}(void) {{ return 0; }}\n" for symbol in sorted(wanted & others))
                source.flush()
                subprocess.run([compiler, "-shared", "-fPIC", "-nostdlib", "-s", "-Os", f"-Wl,-soname,{name}",
                                "-o", self.paths[name], source.name], check=True)
        self.read()

    def prune(self):
        used = self.used()
        gone = [name for name in self.paths if name not in used]
        for name in gone:
            os.remove(self.paths[name])
        for path, origin in [(self.program, "$ORIGIN/../lib")] + [(self.paths[name], "$ORIGIN") for name in used]:
            # Two calls: where a file has no RPATH yet, patchelf 0.14 forgets what one call was to remove.
            strike = [word for name in needed(path) if name in gone for word in ("--remove-needed", name)]
            if strike:
                subprocess.run(["patchelf", *strike, path], check=True)
            # An old-style RPATH, which holds for the libraries' own libraries, too.
            subprocess.run(["patchelf", "--force-rpath", "--set-rpath", origin, path], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--compiler", default="gcc")
    parser.add_argument("--keep-named", action="store_true")
    options = parser.parse_args()
    bundle = Bundle(options.program, options.folder, options.keep_named)
    bundle.replace(options.compiler)
    bundle.prune()


if __name__ == "__main__":
    main()
