"""The words that a body holds for its model: prompts, and what is said in messages.

They are found as who answers finds them, or as anybody might: doubled fields count each time, and
names in any case. Nothing is guessed: text that cannot be told for sure is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from proxy.body.fields import members
from proxy.body.skeleton import Skeleton
from proxy.body.splice import Span
from proxy.errors import BadRequest

PROMPTS: Final = frozenset({"prompt", "hr_prompt"})
"""Fields that say what to paint, in OpenAI's way and in AUTOMATIC1111's."""
SPOKEN: Final = frozenset(
    {*PROMPTS, "suffix", "messages", "input", "system", "instructions"}
    | {"input_prefix", "input_suffix", "input_extra"}  # of llama-server's /infill
)
"""Fields that hold all that is said to a model, of any kind."""
MOST_FIELDS: Final = 1000
HELD: Final = ("content", "text", "prompt_string")
"""Where a message, or a part of one, holds its words; the last in a prompt of llama-server's."""
_NAMED = re.compile(rb"(?:^|;)\s*name(\*[^=]*)?\s*=", re.IGNORECASE)
_PLAIN_NAME = re.compile(rb"[A-Za-z0-9_.\[\]-]+")
_CHARSET = re.compile(rb"charset\s*=\s*\"?(?!utf-?8|us-ascii)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quote:
    """Words that were left in the body."""

    span: Span
    read: Callable[[bytes], str]  # makes them of the bytes there


Passage: TypeAlias = str | Quote


def texts_in(text: Skeleton, names: Collection[str]) -> Sequence[Passage]:
    """Find the words in these fields of a valid JSON object. Raises BadRequest."""
    found: list[Passage] = []
    for member in members(text.raw):
        if member.name.casefold() not in names:
            continue
        try:
            value = json.loads(text.raw[member.value_start : member.value_end])
            found += [_whole(text, words) for words in _words(value)]
        except (ValueError, RecursionError):  # tokens for words, or a tower of brackets
            raise unreadable(member.name) from None
    return found


def texts_in_query(raw: bytes, names: Collection[str]) -> Sequence[str]:
    """Find the words in these fields of a urlencoded form. Raises BadRequest."""
    try:
        fields = parse_qsl(raw.decode(), max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise unreadable("the form") from None
    return [value for name, value in fields if name.casefold() in names]


def is_plain(header: bytes, value: bytes, name: bytes) -> bool:
    """Tell whether all readers of forms read this header of a part alike.

    `name` is what the part is called as we read it.
    """
    match header:
        case b"content-disposition":
            named = [found[1] for found in _NAMED.finditer(value)]
            return named == [None] and _PLAIN_NAME.fullmatch(name) is not None
        case b"content-type":
            return _CHARSET.search(value) is None
        case b"content-transfer-encoding" | b"content-encoding":
            return value.strip().lower() in (b"", b"7bit", b"8bit", b"binary", b"identity")
        case _:
            return True


def unreadable(name: str) -> BadRequest:
    """Make the error for words that have to be read, and cannot be."""
    told = f"{name}: its text cannot be read for sure, and must be; send words in plain UTF-8"
    return BadRequest(told, param=name, code="unreadable_text")


def _words(value: object) -> Iterator[str]:
    """Yield all words. Raises ValueError for tokens, which only the model can read."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _words(item)
        case dict():
            for name, inner in value.items():
                if name.casefold() in HELD:
                    yield from _words(inner)
        case int() | float():
            raise ValueError("a token")
        case _:
            pass


def _whole(text: Skeleton, words: str) -> Passage:
    """Bring a string that was left out to its place in the body."""
    if not (text.gaps and words.startswith(text.mark)):
        return words
    gap = text.gaps[int(words.removeprefix(text.mark))]
    return Quote(Span(gap.start - 1, gap.end + 1), json.loads)
