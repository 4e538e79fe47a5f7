"""What happens, as it happens: one stream of events for each reader, in llama-swap's shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial

import aiohttp
from aiohttp import web

from proxy.config import Config
from proxy.logs import PROXY, UPSTREAM
from proxy.routes import access, inflight, jobs, profiles
from proxy.routes.feed import FEED, Listener, News
from proxy.routes.inflight import INFLIGHT
from proxy.routes.keys import CONFIG, HUB, POOL

MODELS, LOG, UI = "modelStatus", "logData", "uiConfig"
BYTES_EACH_S = 0.25
"""How often at most a request's count of bytes is told anew."""
HEARTBEAT_S = 15.0
"""After so long without news comes a comment: readers and those between give up on silence."""


async def events(request: web.Request) -> web.StreamResponse:
    """Answer GET /api/events until the reader leaves: all that is known, then what changes."""
    feed, hub, standing = request.app[FEED], request.app[HUB], request.app[POOL].standing
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
    )
    with feed.listening(partial(access.is_ones_own, request)) as listener:

        def hear(source: str, line: str) -> None:
            data = {"source": PROXY if source == PROXY else UPSTREAM, "data": f"{line}\n"}
            listener.hear(LOG, data)

        with hub.told_to(hear), standing.watched(listener.wake), suppress(aiohttp.ClientError):
            await response.prepare(request)
            await _Teller(request, response, listener).run()
    return response


async def let_go(app: web.Application) -> None:
    """End every stream of events: the server is about to leave."""
    app[FEED].close()


class _Teller:
    """What one reader is told."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, listener: Listener
    ) -> None:
        self._request = request
        self._response = response
        self._listener = listener
        self._inflight = request.app[INFLIGHT]
        self._config: Config | None = None  # that was told of
        self._states: Mapping[str, str] = {}  # of the models, as they were told
        self._sizes: dict[int, int] = {}  # of answers, by request, as they were told
        self._sizes_at = 0.0

    async def run(self) -> None:
        await self._write(self._begin())
        while not self._listener.is_over:
            pause_s = BYTES_EACH_S if len(self._inflight) else HEARTBEAT_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._listener.wake.wait()
            except TimeoutError:
                if pause_s == HEARTBEAT_S:
                    await self._response.write(b": \n\n")
            await self._write(self._news())

    def _begin(self) -> Iterator[News]:
        hub = self._request.app[HUB]
        for source in (PROXY, UPSTREAM):
            lines = "".join(f"{line}\n" for line in hub.history(source))
            yield LOG, {"source": source, "data": lines}
        self._listener.take()  # it is all told here
        yield from self._changes()
        yield inflight.KIND, self._inflight.snapshot(_now())
        yield from self._jobs()

    def _news(self) -> Iterator[News]:
        listener = self._listener
        news = listener.take()
        yield from self._changes()
        yield from _joined(news)
        if listener.has_lost:
            listener.has_lost = False
            yield inflight.KIND, self._inflight.snapshot(_now())
            yield from self._jobs()
        yield from self._growth()

    def _jobs(self) -> Iterator[News]:
        if told := jobs.listed(self._request):
            yield jobs.KIND, {"operation": "snapshot", "jobs": told}

    @property
    def _now(self) -> Config:
        return self._request.app[CONFIG]()

    def _changes(self) -> Iterator[News]:
        """Tell the models' states and the config, where they are not as they were told."""
        states = self._request.app[POOL].standing.states()
        is_new = self._config is not self._now
        if is_new or states != self._states:
            self._states = states
            yield MODELS, [*_models(self._now, states)]
        if is_new:
            self._config = self._now
            names = list(self._now.ui.activity.session_id)
            yield UI, {"activity": {"session_id": names}}
            # another config has none at first
            yield profiles.KIND, {"active": self._request.app[profiles.ACTIVE].name(self._now)}

    def _growth(self) -> Iterator[News]:
        """Tell of the answers that have grown, not too often."""
        now = _now()
        if now - self._sizes_at < BYTES_EACH_S:
            return
        sizes = {flight.id: flight.errand.sent.size for flight in self._inflight}
        for flight in self._inflight:
            if sizes[flight.id] != self._sizes.get(flight.id, 0):
                yield inflight.KIND, {"operation": "upsert", "request": flight.as_json(now)}
        self._sizes, self._sizes_at = sizes, now

    async def _write(self, news: Iterator[News]) -> None:
        if frames := b"".join(_frame(kind, data) for kind, data in news):
            await self._response.write(frames)


def _frame(kind: str, data: object) -> bytes:
    return (
        f"event:message\ndata:{json.dumps({'type': kind, 'data': json.dumps(data)})}\n\n".encode()
    )


def _joined(news: list[News]) -> Iterator[News]:
    """Make one of log lines that follow each other."""
    lines: dict[str, list[str]] = {}
    for kind, data in news:
        if kind == LOG and isinstance(data, dict):
            lines.setdefault(data["source"], []).append(data["data"])
        else:
            yield kind, data
    for source, texts in lines.items():
        yield LOG, {"source": source, "data": "".join(texts)}


def _models(config: Config, states: Mapping[str, str]) -> Iterator[Mapping[str, object]]:
    for model_id, model in sorted(config.models.items()):
        yield {
            "id": model_id,
            "name": model.name,
            "description": model.description,
            "state": states.get(model_id, "stopped"),
            "unlisted": model.unlisted,
            "peerID": "",
            **({"aliases": list(model.aliases)} if model.aliases else {}),
            **({"capabilities": list(model.words)} if model.words else {}),
        }
    for peer_id, peer in sorted(config.peers.items()):
        for name in peer.models:
            yield {
                "id": f"{peer_id}/{name}",
                "name": f"{peer_id}: {name}",
                "description": "",
                "state": "",
                "unlisted": False,
                "peerID": peer_id,
            }


def _now() -> float:
    return asyncio.get_running_loop().time()
