"""Streams one request to who answers it, a worker or a peer, and the answer back.

==========  =======================================================================
`errand`    a request on its way, and what came of it
`outlet`    where its answer goes
`upstream`  what is to be known of who answers
`worker`    a worker of ours as one
`peer`      another server as one
`relay`     the way there and back, the same for both
==========  =======================================================================
"""

from aiohttp import web

from proxy.forward.errand import (
    CLIENT_LEFT,
    ERROR_STATUS,
    EVENTS,
    Errand,
    Sent,
    break_off,
    cut,
)
from proxy.forward.outlet import Outlet, ToClient
from proxy.forward.peer import ToPeer
from proxy.forward.relay import NOT_SENT_ON, relay
from proxy.forward.upstream import HOP_BY_HOP, KEYS, NotSent, end_to_end
from proxy.forward.worker import ToWorker
from proxy.seat import Seat

__all__ = [
    "CLIENT_LEFT",
    "ERROR_STATUS",
    "EVENTS",
    "HOP_BY_HOP",
    "KEYS",
    "NOT_SENT_ON",
    "Errand",
    "NotSent",
    "Outlet",
    "Sent",
    "ToClient",
    "ToPeer",
    "break_off",
    "cut",
    "end_to_end",
    "forward",
    "relay",
]


async def forward(errand: Errand, seat: Seat) -> web.StreamResponse:
    """Relay the request to the worker, and its answer to the end.

    Raises NotSent before anything was sent, WorkerDied when the worker broke off before its
    answer began.
    """
    return await relay(errand, ToWorker(errand, seat))
