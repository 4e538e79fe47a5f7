"""A text as it may be meant, however it is written. PURE."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

BEGIN, END = "<sd_cpp_extra_args>", "</sd_cpp_extra_args>"
"""Between them a prompt has JSON with more fields, as stable-diffusion.cpp's server takes it."""
PROMPTS = ("prompt",)
_TAG = re.compile(r"<[^<>]*>")
_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u2800\u3164\uffa0"
"""Letters and marks that look like nothing, though Unicode does not call them formats."""
_MOST_MARKS = 30
"""On one letter; no script has more (Unicode Standard Annex #15, Stream-Safe Text Format)."""


def readings(prompt: str) -> Iterator[str]:
    """Yield the prompt as it is painted, with each way to write it that rules may know.

    What stands between tags goes by itself; where a tag was, the rest moves together, as it does
    in the engine, or a space stays, as in our own worker.
    """
    text, block = _taken_apart(prompt)
    for part in (text, *_prompts_in(block)):
        for way in dict.fromkeys((part, _TAG.sub("", part), _TAG.sub(" ", part))):
            yield from forms(way)


def forms(text: str) -> tuple[str, ...]:
    """Give the text plainly (NFKC, no invisible characters, single spaces), folded, and bare."""
    plain = _spaced(_seen(_normal("NFKC", text)))
    return tuple(dict.fromkeys((plain, plain.casefold(), bare(plain))))


def bare(text: str) -> str:
    """Fold case, and leave out accents, invisible characters and underscores."""
    apart = _normal("NFKD", _normal("NFKC", text).casefold())
    gone = {ord(c): None for c in set(apart) if unicodedata.category(c) in ("Mn", "Me")}
    return _spaced(_seen(apart.translate(gone)).replace("_", " "))


def _normal(form: Literal["NFKC", "NFKD"], text: str) -> str:
    """Give a normal form, without the marks that are too many in a row.

    To put marks in order takes time that grows with the square of their number, and the whole
    server waits: a quarter of a million took most of a minute.
    """
    marks = "".join(c for c in set(text) if _is_mark(c))
    if marks:
        text = re.sub(f"([{marks}]{{{_MOST_MARKS}}})[{marks}]+", r"\1", text)
    return unicodedata.normalize(form, text)


def _is_mark(character: str) -> bool:
    """Tell whether it goes with the letter before it, at once or when it is taken apart."""
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0


def _seen(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    gone = {ord(c): None for c in set(text) if _is_unseen(c)}
    return text.translate(gone) if gone else text


def _is_unseen(character: str) -> bool:
    if character in _BLANKS or "\ufe00" <= character <= "\ufe0f" or character > "\U000dffff":
        return True
    return unicodedata.category(character) in ("Cc", "Cf") and character not in _SPACES


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _taken_apart(prompt: str) -> tuple[str, str]:
    """Take the first block out, as the engine's server does."""
    before, begin, rest = prompt.partition(BEGIN)
    block, end, after = rest.partition(END)
    return (f"{before}{after}", block) if begin and end else (prompt, "")


def _prompts_in(block: str) -> Iterator[str]:
    """Yield what a block says to paint; all of it, where it is no JSON to us."""
    if not block.strip():
        return
    try:
        fields = json.loads(block, object_pairs_hook=list)
    except (ValueError, RecursionError):
        yield block
        return
    for field in fields if isinstance(fields, list) else ():
        match field:
            case (str(name), str(text)) if name.casefold() in PROMPTS:
                yield text
