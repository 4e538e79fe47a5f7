"""The few fields that the proxy reads of a urlencoded form or of a query, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote_plus, unquote_plus

from proxy.body.edit import Edit
from proxy.body.peek import FIELD_BYTES, FIELDS, Peek, peek_texts
from proxy.body.splice import Span, Splice, pieces
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


def splices_in_query(spans: Sequence[Span], edit: Edit) -> Sequence[Splice]:
    """Put another name where `model` stands; a query is told nothing else."""
    if edit.model is None:
        return ()
    name = quote_plus(edit.model).encode()
    return [Splice(one.start, one.end, name) for one in spans]


def renamed_in(target: str, name: str) -> str:
    """Put another name where the query of a request's target says `model`."""
    path, mark, query = target.partition("?")
    raw = query.encode("utf-8", "surrogateescape")  # as aiohttp has decoded it
    _, spans = peek_query(raw)
    splices = splices_in_query(spans, Edit(name))
    out = [
        one if isinstance(one, bytes) else raw[one.start : one.end]
        for one in pieces(splices, len(raw), len(raw))
    ]
    text = b"".join(out).decode("utf-8", "surrogateescape")
    return f"{path}{mark}{text}"
