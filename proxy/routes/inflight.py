"""The requests that are on their way: who they are, and how one of them is ended from outside."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import NotFound
from proxy.forward import KEYS, Errand
from proxy.routes.feed import Feed

KIND = "inflight"
REFERENCES = "X-Hotseat-Files"
"""Names pictures to who has brought them: who else knew their names could have them too."""
HIDDEN = frozenset({*KEYS, "proxy-authorization", "cookie", "set-cookie", REFERENCES.lower()})
REDACTED = "[REDACTED]"


@dataclass(slots=True, eq=False)
class Flight:
    """One request, from its place in the queue to its last byte."""

    id: int
    errand: Errand
    began_at: float  # by the wall clock
    began: float  # time.monotonic()
    limit: asyncio.Timeout
    metadata: Mapping[str, str]
    is_cancelled: bool = False

    def cancel(self) -> None:
        """End it, as if its time were over. What is over already stays as it is."""
        self.is_cancelled = True
        with suppress(RuntimeError):  # it is ending by itself
            self.limit.reschedule(asyncio.get_running_loop().time())

    def as_json(self, now: float) -> Mapping[str, object]:
        request, response = self.errand.request, self.errand.response
        return {
            "id": self.id,
            "timestamp": moment(self.began_at),
            "model": self.errand.model_id,
            "req_path": request.path,
            "method": request.method,
            "req_headers": _shown(request.headers),
            "remote_ip": request.remote or "",
            "resp_headers": _shown(response.headers) if response is not None else {},
            "resp_bytes": self.errand.sent.size,
            "elapsed_ms": round(1000 * (now - self.began)),
            "metadata": dict(self.metadata),
        }


class Inflight:
    """All of them, in the order in which they came."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._flights: dict[int, Flight] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._flights.values())

    def __len__(self) -> int:
        return len(self._flights)

    def begin(
        self, errand: Errand, limit: asyncio.Timeout, began: float, metadata: Mapping[str, str]
    ) -> Flight:
        """Take note of a request; `end` must follow, whatever becomes of it."""
        flight = Flight(next(self._numbers), errand, time.time(), began, limit, metadata)
        self._flights[flight.id] = flight
        if self._feed.is_heard:
            self._feed.tell(KIND, {"operation": "upsert", "request": flight.as_json(began)})
        return flight

    def end(self, flight: Flight) -> None:
        del self._flights[flight.id]
        if self._feed.is_heard:
            self._feed.tell(KIND, {"operation": "remove", "id": flight.id})

    def find(self, number: str) -> Flight:
        """Find one by its id, as it stands in a path. Raises NotFound."""
        flight = self._flights.get(int(number)) if _is_number(number) else None
        if flight is None:
            raise NotFound("inflight request not found: it has ended, or there never was one")
        return flight

    def snapshot(self, now: float) -> Mapping[str, object]:
        entries = [flight.as_json(now) for flight in self]
        return {"operation": "snapshot", "requests": entries}


INFLIGHT = web.AppKey("inflight", Inflight)


async def list_inflight(request: web.Request) -> web.Response:
    """Answer GET /api/inflight."""
    now = asyncio.get_running_loop().time()
    entries = [flight.as_json(now) for flight in request.app[INFLIGHT]]
    return web.json_response({"requests": entries})


async def cancel(request: web.Request) -> web.Response:
    """Answer POST /api/inflight/{id}/cancel; its client is told in words, or cut off."""
    request.app[INFLIGHT].find(request.match_info["id"]).cancel()
    return web.json_response({"msg": "ok"})


def moment(at: float) -> str:
    """Write a time of the wall clock as RFC 3339 has it."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20  # noqa: PLR2004  # as 2^64 has


def _shown(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> Mapping[str, str]:
    """Give the headers without what lets one in, or leads to a picture."""
    return {
        name: REDACTED if name.lower() in HIDDEN else ", ".join(headers.getall(name))
        for name in headers
    }
