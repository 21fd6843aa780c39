#!/usr/bin/env python3
"""Finds expressions that draw twice from a random stream in an order that C++17 leaves to the compiler: within one
call's arguments, or on both sides of an operator. Prints each pair; exits 1 if there is any.

usage: scripts/check_draws.py [FILE.cpp | FILE.h]...      (default: all of src/)

A draw is a call of one of Random's or LibTorch's random functions, of a lambda that holds such a call, or of a function
that takes a Random by reference. Draws have an order in braces ({a, b}), in separate statements or declarators, on the
two sides of &&, ||, ?:, << and =, and one within the other's arguments. Reads tokens, not types.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = {"uniform", "below", "bernoulli", "shuffle", "normal_", "uniform_", "bernoulli_", "random_", "multinomial"}
LIBTORCH = {"rand", "randn", "randint", "randperm", "multinomial", "normal", "bernoulli", "rand_like", "randn_like"}
UNORDERED = {"+", "-", "*", "/", "%", "|", "^", "&", "==", "!=", "<=", ">="}
STATEMENTS = {"if", "for", "while", "switch", "catch"}
IGNORED = re.compile(r"""//[^\n]* | /\*.*?\*/ | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])' | ^[ \t]*\#[^\n]*""",
                     re.S | re.M | re.X)
TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.']*|&&|\|\||::|->|<<|>>|\+\+|--|[-+*/%&|^=!<>]=|\S")


class Source:
    """A file's tokens, the brackets around each, and its draws."""

    def __init__(self, text, functions):
        text = IGNORED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
        self.tokens, self.lines, self.around, self.end = [], [], [], {}
        open_brackets = []
        for match in TOKEN.finditer(text):
            token, i = match.group(), len(self.tokens)
            if token in ")]}" and open_brackets:
                self.end[open_brackets.pop()] = i
            self.tokens.append(token)
            self.lines.append(text.count("\n", 0, match.start()) + 1)
            self.around.append(tuple(open_brackets))
            if token in "([{":
                open_brackets.append(i)
        self.drawing = set(functions)
        for _ in range(2):  # a lambda may call another
            self.drawing.update(self.lambdas_that_draw())

    def draws(self, first=0, last=None):
        last = len(self.tokens) - 1 if last is None else last
        return [i for i in range(first, last) if self.tokens[i + 1] == "(" and self.is_draw(i)]

    def is_draw(self, i):
        name, before, owner = self.tokens[i], self.tokens[i - 1], self.tokens[i - 2]
        if before in (".", "->"):
            return name in METHODS or (name == "next" and owner in ("random", "noise"))
        if before == "::":
            return name in LIBTORCH and owner in ("torch", "at")
        return name in self.drawing

    def lambdas_that_draw(self):
        """`auto name = [...](...) {...}` whose body draws."""
        for i in range(len(self.tokens) - 3):
            if self.tokens[i] != "auto" or self.tokens[i + 2:i + 4] != ["=", "["]:
                continue
            body = self.end.get(i + 3, i + 3) + 1
            while body < len(self.tokens) and self.tokens[body] not in ("{", ";"):
                body = self.end.get(body, body) + 1
            if self.draws(body, self.end.get(body, body)):
                yield self.tokens[i + 1]

    def have_no_order(self, a, b):
        """Whether the draws that tokens a < b name are without one."""
        if self.end.get(a + 1, 0) > b:
            return False  # b is in a's arguments
        common = [bracket for bracket in self.around[a] if bracket in self.around[b]]
        depth = len(common)
        level = [i for i in range(a + 1, b) if len(self.around[i]) == depth and self.tokens[i] not in ")]}"]
        between = {self.tokens[i] for i in level}
        if between & {"&&", "||", "?", ";"}:
            return False
        outer = common[-1] if common else None
        if outer is None or self.tokens[outer] == "{":
            if "," in between or any(self.tokens[i] == "{" and self.is_block(i) for i in level):
                return False  # declarators, a list, or another statement
            inner = self.around[a][depth:depth + 1]
            if inner and (self.tokens[inner[0] - 1] in STATEMENTS or self.is_block(inner[0])):
                return False
        elif "," in between:
            caller = self.tokens[outer - 1]
            return self.tokens[outer] == "(" and caller not in STATEMENTS and re.match(r"[\w>\])]", caller) is not None
        return bool(between & UNORDERED)

    def is_block(self, i):
        return self.tokens[i] == "{" and self.tokens[i - 1] in (")", "else", "do", "try", "const", "override", "{", ";", "}")

    def offences(self):
        draws = self.draws()
        for k, b in enumerate(draws):
            for a in draws[max(0, k - 8):k]:
                if self.have_no_order(a, b):
                    yield self.lines[b], self.tokens[a], self.tokens[b]


def functions_that_draw(texts):
    """Names of functions with a parameter `Random& name`."""
    parameter = re.compile(r"(\w+)\((?:[^();{]|\([^()]*\))*?\bRandom& \w+[,)]")
    return {match.group(1) for text in texts for match in parameter.finditer(text)}


def main():
    sources = sorted(path for path in (ROOT / "src").rglob("*") if path.suffix in (".cpp", ".h"))
    functions = functions_that_draw(path.read_text() for path in sources)
    found = 0
    for path in [pathlib.Path(name) for name in sys.argv[1:]] or sources:
        for line, first, second in Source(path.read_text(), functions).offences():
            found += 1
            print(f"{path}:{line}: {first}() and {second}() draw within one expression, in an order that is the "
                  "compiler's choice; make each draw a statement of its own")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
