"""The texts in a PNG (its chunks tEXt, zTXt and iTXt: PNG 3, 11.3.3). PURE."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_BYTES = 1 << 20  # of one text, unpacked; a bomb would be more


class NotPng(ValueError):
    """These bytes are no PNG."""


def texts_of(raw: bytes) -> Mapping[str, str]:
    """Give the texts by their keywords. Raises NotPng."""
    if not raw.startswith(SIGNATURE):
        raise NotPng("it does not begin as one")
    found: dict[str, str] = {}
    for kind, data in _chunks(raw):
        keyword, _, rest = data.partition(b"\0")
        text = _text(kind, rest)
        if text is not None:
            found[keyword.decode("latin-1")] = text
    return found


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 8 <= len(raw):
        size, kind = struct.unpack_from(">I4s", raw, at)
        if at + 12 + size > len(raw):
            raise NotPng("it breaks off")
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            yield kind, raw[at + 8 : at + 8 + size]
        at += 12 + size


def _text(kind: bytes, rest: bytes) -> str | None:
    """Read what follows the keyword; None: it cannot be read."""
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        unpacked = _unpacked(rest[1:])
        return unpacked.decode("latin-1") if unpacked is not None else None
    is_packed, packed = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    unpacked = _unpacked(packed) if is_packed else packed
    return unpacked.decode("utf-8", "replace") if unpacked is not None else None


def _unpacked(packed: bytes) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(packed, TEXT_BYTES)
    except zlib.error:
        return None
    return text if stream.eof else None  # it breaks off, or is too long
