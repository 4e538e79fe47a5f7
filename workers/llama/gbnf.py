"""What of llama.cpp's grammars (GBNF) may reach the engine's parser. Pure.

The parser recurses on the C stack and unrolls repetitions, so a small text can end the process;
and a grammar that can go on in many ways at once takes its time over each token.
Source: llama.cpp, grammars/README.md.
"""

from __future__ import annotations

import re

MAX_CHARS = 256 << 10
MAX_DEPTH = 64
MAX_REPEATS = 2000  # the engine's own limit
# Against mistakes, not malice: 30 times `[a-z ]?` in a row take 4 s a token [measured], for each
# character of a token multiplies the ways to go on.
MAX_OPTIONALS = 100

# Literals, classes, tokens and comments. What is not closed goes on to the end, which the parser
# refuses, and which keeps this linear.
_TEXTS = re.compile(
    r'"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?|<[^>]*>?|#[^\r\n]*', re.DOTALL | re.ASCII
)
_REPEAT = re.compile(r"\{\s*([0-9]+)\s*(?:(,)\s*([0-9]*)\s*)?\}")


class Unsupported(ValueError):
    """The grammar, or the schema that asks for one, is not for this engine; says why."""


def check(grammar: str) -> str:
    """Refuse a grammar that could bring the engine's parser down. Raises Unsupported."""
    _check(grammar)
    return grammar


def check_foreign(grammar: str) -> str:
    """Refuse also what would take too long, of a grammar not made here. Raises Unsupported."""
    bare = _check(grammar)
    optionals = len(re.findall(r"[?*]", bare))
    optionals += sum(bool(comma) and int(low) == 0 for low, comma, _ in _REPEAT.findall(bare))
    if optionals > MAX_OPTIONALS:
        raise Unsupported(f"the grammar has more than {MAX_OPTIONALS} of ?, * and {{0,…}}")
    return grammar


def _check(grammar: str) -> str:
    """Check size, nesting and repetitions. Returns the grammar's bones, without its texts."""
    if len(grammar) > MAX_CHARS or "\x00" in grammar:
        raise Unsupported(f"the grammar is longer than {MAX_CHARS} characters, or has NUL")
    bare = _TEXTS.sub(" ", grammar)
    depth = 0
    for bracket in re.findall(r"[()]", bare):
        depth += 1 if bracket == "(" else -1
        if depth > MAX_DEPTH:
            raise Unsupported(f"the grammar is nested more than {MAX_DEPTH} deep")
    for low, _, high in _REPEAT.findall(bare):
        if max(len(low), len(high)) > len(str(MAX_REPEATS)):
            raise Unsupported(f"the grammar repeats something more than {MAX_REPEATS} times")
        if high and int(high) < int(low):
            raise Unsupported(f"the grammar repeats something from {low} to only {high} times")
    return bare
