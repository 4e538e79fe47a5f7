"""One request on its way, what came of it so far, and its end when that is no good one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from proxy.body import Body
from proxy.config import Config
from proxy.errors import HotseatError
from proxy.forward.outlet import Outlet, ToClient
from proxy.scheduler import TicketId
from proxy.seat import Lease
from proxy.tokens import Ends
from proxy.wishes import Wish

log = logging.getLogger(__name__)

EVENTS = "text/event-stream"
ERROR_STATUS = 400  # and above
LAST_EVENT = b"data: [DONE]"  # behind it comes nothing but the end of the connection
CLIENT_LEFT = 499  # nginx's word for it; only the log says it


@dataclass(slots=True)
class Sent:
    """What went out: kept up to date while it goes."""

    status: int = 0
    size: int = 0
    first_byte_at: float | None = None  # time.monotonic()
    is_cut: bool = False
    ends: Ends = field(default_factory=Ends)

    @property
    def is_well(self) -> bool:
        """Tell whether it was a whole and good answer."""
        return self.status < ERROR_STATUS and not self.is_cut

    def note_client_left(self) -> bool:
        """Note that the client is gone; False: with all that it waited for, as SDKs do."""
        if self.ends.last.rstrip().endswith(LAST_EVENT):
            return False
        self.status = CLIENT_LEFT
        return True


@dataclass(slots=True)
class Errand:
    """One request on its way to who answers it, and what came of it so far."""

    request: web.Request
    model_id: str  # of a peer's model: the name with the peer's
    path: str  # where it is answered, with its query
    body: Body
    config: Config  # under which it came; a reload may have made another since
    wish: Wish = field(default_factory=Wish)
    withheld: tuple[str, ...] = ()  # headers that are for us alone
    marks: Mapping[str, str] = field(default_factory=dict)  # told to who answers, and who asked
    outlet: Outlet = field(default_factory=ToClient)
    ticket: TicketId | None = None  # its place in the queue, or the one that it had
    leases: list[Lease] = field(default_factory=list)
    sent: Sent = field(default_factory=Sent)
    response: web.StreamResponse | None = None  # once its head is out
    ran_out_of_memory: bool = False  # the worker, over this

    @property
    def stall_s(self) -> float:
        """Tell how long the client may take nothing of its answer."""
        return self.config.stall_timeout

    async def write(self, chunk: bytes) -> None:
        """Send more of the answer. Raises TimeoutError when the client does not take it."""
        if self.response is None:
            raise RuntimeError("wrote before the head was out")
        async with asyncio.timeout(self.stall_s):
            await self.response.write(chunk)


async def break_off(errand: Errand, error: HotseatError) -> web.StreamResponse:
    """End an answer whose head is out so that it looks broken, after telling why if it can."""
    if errand.response is None:
        raise RuntimeError("nothing to break off")
    if errand.response.content_type == EVENTS:
        with suppress(aiohttp.ClientError, TimeoutError):
            await errand.write(f"\n\ndata: {json.dumps(error.body)}\n\n".encode())
    cut(errand, error.message)
    return errand.response


def cut(errand: Errand, why: str) -> None:
    """End a broken answer so that it looks broken."""
    errand.sent.is_cut = True
    log.warning("answer_cut", extra={"path": errand.request.path, "why": why})
    errand.outlet.cut(errand.request)
