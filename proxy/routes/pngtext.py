"""The texts in a PNG (its chunks tEXt, zTXt and iTXt: PNG 3, 11.3.3). PURE."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_BYTES = 1 << 20  # of all texts, unpacked; a bomb would be more
BROKEN_BYTES = TEXT_BYTES >> 4  # what one that cannot be read counts as: it took time to see
ENCODINGS: Mapping[bytes, str] = {b"tEXt": "latin-1", b"zTXt": "latin-1", b"iTXt": "utf-8"}


class NotPng(ValueError):
    """These bytes are no PNG."""


def texts_of(raw: bytes) -> Mapping[str, str]:
    """Give the texts by their keywords, but those that are broken or too much. Raises NotPng."""
    if not raw.startswith(SIGNATURE):
        raise NotPng("it does not begin as one")
    found: dict[str, str] = {}
    left_bytes = TEXT_BYTES
    for kind, data in _chunks(raw):
        keyword, _, rest = data.partition(b"\0")
        text = _text(kind, rest, max(0, left_bytes))
        left_bytes -= len(text) if text is not None else BROKEN_BYTES
        if text is not None:
            found[keyword.decode("latin-1")] = text.decode(ENCODINGS[kind], "replace")
        elif left_bytes <= 0:
            break
    return found


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 8 <= len(raw):
        size, kind = struct.unpack_from(">I4s", raw, at)
        if at + 12 + size > len(raw):
            raise NotPng("it breaks off")
        if kind in ENCODINGS:
            yield kind, raw[at + 8 : at + 8 + size]
        at += 12 + size


def _text(kind: bytes, rest: bytes, most_bytes: int) -> bytes | None:
    """Read what follows the keyword; None: it cannot be read, or is too long."""
    if kind == b"tEXt":
        is_packed, text = False, rest
    elif kind == b"zTXt":
        is_packed, text = True, rest[1:]
    else:
        is_packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    if is_packed:
        return _unpacked(text, most_bytes)
    return text if len(text) <= most_bytes else None


def _unpacked(packed: bytes, most_bytes: int) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(packed, most_bytes + 1)  # 0 would mean: as much as there is
    except zlib.error:
        return None
    return text if stream.eof and len(text) <= most_bytes else None
