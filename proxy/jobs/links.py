"""Pictures that stand in an answer become files of their own, and the answer leads to them."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable

from proxy.jobs.answer import KeptAnswer
from proxy.jobs.shelf import Shelf

Keep = Callable[[str, KeptAnswer], object]

TOKEN_BYTES = 18  # who knows the name of a picture may have it
_DATA = re.compile(rb'("url":\s*)"data:image/(png|jpeg|webp);base64,([A-Za-z0-9+/=]*)"')
"""A quote inside a JSON string has a backslash before it, so no text of a prompt looks so."""


def linked(answer: KeptAnswer, shelf: Shelf, base: str, keep: Keep) -> None:
    """Put links that begin with `base` where the pictures stand; call from a thread.

    `keep` is told each picture with its name, as soon as it is there: whoever waits for the links
    may leave meanwhile. Raises OSError.
    """

    def link(found: re.Match[bytes]) -> bytes:
        try:
            raw = base64.b64decode(found[3])
        except ValueError:  # a foreign worker's mistake: who gets it is the judge of it
            return found[0]
        kind = found[2].decode()
        name = f"{secrets.token_urlsafe(TOKEN_BYTES)}.{kind.replace('jpeg', 'jpg')}"
        picture = shelf.new(name)
        headers = {
            "Content-Type": f"image/{kind}",
            "Cache-Control": f"private, max-age={shelf.keep_s:.0f}",
            "X-Content-Type-Options": "nosniff",  # what a worker calls a picture may be a page
        }
        picture.fill(200, None, headers, raw)
        keep(name, picture)
        if picture.is_cut:
            raise OSError(picture.why)
        return found[1] + json.dumps(f"{base}{name}").encode()

    with answer.path.open("r+b") as file:  # it may be thrown away meanwhile: make no new one
        raw = _DATA.sub(link, file.read())
        file.seek(0)
        file.truncate()
        answer.size_bytes = file.write(raw)
