"""Pictures that stand in an answer become files of their own, and the answer leads to them."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.jobs.answer import KeptAnswer
from proxy.jobs.shelf import Shelf

TOKEN_BYTES = 18  # who knows the name of a picture may have it
_DATA = re.compile(rb'("url":\s*)"data:image/(png|jpeg|webp);base64,([A-Za-z0-9+/=]*)"')
"""A quote inside a JSON string has a backslash before it, so no text of a prompt looks so."""


def linked(answer: KeptAnswer, shelf: Shelf, base: str) -> dict[str, KeptAnswer]:
    """Put links that begin with `base` where the pictures stand; call from a thread.

    Gives the pictures by their names; they are still to be kept.
    """
    pictures: dict[str, KeptAnswer] = {}

    def link(found: re.Match[bytes]) -> bytes:
        kind = found[2].decode()
        name = f"{secrets.token_urlsafe(TOKEN_BYTES)}.{kind.replace('jpeg', 'jpg')}"
        pictures[name] = picture = shelf.new(name)
        raw = base64.b64decode(found[3])
        headers = {"Content-Type": f"image/{kind}", "Cache-Control": "private, max-age=3600"}
        picture.fill(200, None, headers, raw)
        return found[1] + json.dumps(f"{base}{name}").encode()

    with _thrown_away_on_failure(pictures):
        raw = _DATA.sub(link, answer.path.read_bytes())
        if pictures:
            answer.path.write_bytes(raw)
            answer.size_bytes = len(raw)
    return pictures


@contextmanager
def _thrown_away_on_failure(pictures: dict[str, KeptAnswer]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for picture in pictures.values():
            picture.path.unlink(missing_ok=True)
        raise
