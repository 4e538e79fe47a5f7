"""Who waits for a whole answer is told now and then that it is still worked on.

Many clients give up on a connection that says nothing for a minute, and a cold load, or a long
answer that is not streamed, takes longer. An interim response (102, RFC 2518 §10.1) before the
answer's head breaks that silence. All clients must skip it (RFC 9110 §15.2), but not all do:
Python's own takes the first for the answer, Go's ends after five. So those hear it that are known
to take it well, by the name that they give themselves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import HttpVersion11

from proxy.forward import Errand, ToClient

INTERIM: Final = b"HTTP/1.1 102 Processing\r\n\r\n"
_SKIPS_IT = re.compile(r"(?:\A|\s)(?:python-httpx2?|(?:Async)?OpenAI/Python)\b")


@contextmanager
def pulse(errand: Errand) -> Iterator[None]:
    """Break the silence every `waitingNotes` for the length of the block, until the answer begins.

    Not for an answer that goes elsewhere than to the client: he may have been answered already.
    """
    every_s = errand.config.waiting_notes
    if not every_s or not _hears_it(errand):
        yield
        return
    loop = asyncio.get_running_loop()
    clock: asyncio.TimerHandle

    def beat() -> None:
        nonlocal clock
        transport = errand.request.transport
        if errand.response is None and transport is not None and not transport.is_closing():
            transport.write(INTERIM)
            clock = loop.call_later(every_s, beat)

    clock = loop.call_later(every_s, beat)
    try:
        yield
    finally:
        clock.cancel()


def _hears_it(errand: Errand) -> bool:
    request = errand.request
    is_new = request.version >= HttpVersion11
    named = request.headers.get("User-Agent", "")
    return is_new and isinstance(errand.outlet, ToClient) and _SKIPS_IT.search(named) is not None
