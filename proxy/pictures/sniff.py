"""What kind of picture some bytes are, by how they begin. PURE."""

from __future__ import annotations

from typing import Final

HEAD_BYTES: Final = 64
"""So many tell."""
EXTENSIONS: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/tiff": "tif",
    "image/avif": "avif",
}
"""All kinds that are known, with the usual end of a file's name."""
_BEGINNINGS: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Sizes of the header behind a BMP's own: two letters alone begin many a text."""
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})


def sniff(raw: bytes) -> str | None:
    """Name the media type of a picture; None: it is none that is known. The head is enough."""
    for beginning, media_type in _BEGINNINGS.items():
        if raw.startswith(beginning):
            return media_type
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    if raw[:2] == b"BM" and int.from_bytes(raw[14:18], "little") in _BMP_HEADERS:
        return "image/bmp"
    if raw[4:8] == b"ftyp" and not _AVIF_BRANDS.isdisjoint(_brands(raw)):
        return "image/avif"
    return None


def _brands(raw: bytes) -> list[bytes]:
    """Give the brands of an ISO media file: its own, and those that it is compatible with."""
    end = min(int.from_bytes(raw[:4], "big"), HEAD_BYTES)
    return [raw[8:12], *(raw[at : at + 4] for at in range(16, end, 4))]
