"""The few fields that the proxy reads of a urlencoded form or of a query, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote_plus, unquote_plus

from proxy.body.peek import FIELD_BYTES, FIELDS, Peek, peek_texts
from proxy.body.splice import Span, Splice
from proxy.errors import BadRequest

_FIELD = re.compile(rb"(?:^|&)(" + "|".join(FIELDS).encode() + rb")=([^&]*)")


def peek_query(raw: bytes) -> tuple[Peek, tuple[Span, ...]]:
    """Look into it; the spans are the values of `model`. Raises BadRequest."""
    texts: dict[str, str] = {}
    spans = []
    for found in _FIELD.finditer(raw):
        name, value = found[1].decode(), found[2]
        if len(value) > FIELD_BYTES:
            raise BadRequest(f"the field {name} is too long", param=name)
        texts[name] = unquote_plus(value.decode("utf-8", "replace"))
        if name == "model":
            spans.append(Span(found.start(2), found.end(2)))
    return peek_texts(texts), tuple(spans)


def renamed(spans: Sequence[Span], name: str) -> list[Splice]:
    """Put another name where `model` stands."""
    return [Splice(one.start, one.end, quote_plus(name).encode()) for one in spans]


def renamed_in(target: str, name: str) -> str:
    """Put another name where the query of a request's target says `model`."""
    path, mark, query = target.partition("?")
    raw = query.encode("utf-8", "surrogateescape")  # as aiohttp has decoded it
    _, spans = peek_query(raw)
    out, at = b"", 0
    for splice in renamed(spans, name):
        out += raw[at : splice.start] + splice.put
        at = splice.end
    text = (out + raw[at:]).decode("utf-8", "surrogateescape")
    return f"{path}{mark}{text}"
