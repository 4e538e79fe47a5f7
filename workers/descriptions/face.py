"""The HTTP face: reads the request, lets the pictures be described, and tells it in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias

from aiohttp import web

from workers import wire
from workers.descriptions.asked import Asked, Request, Sent, Task, names_of, read
from workers.descriptions.told import Description

PATH = "/images/descriptions"

Outcome: TypeAlias = Description | wire.ApiError


class Describer(Protocol):
    """What an engine brings to this face."""

    @property
    def name(self) -> str:
        """Stand for the model where a request names none."""

    @property
    def tasks(self) -> Collection[Task]:
        """Name the tasks that the model has."""

    @property
    def at_once(self) -> int:
        """Bound how many pictures of one request are in the works."""

    async def describe(self, sent: Sent, asked: Asked) -> Description:
        """Decode and describe one picture; cancelling it gives it up. Raises ApiError."""


class Face:
    """The face for programs that want fields, not a conversation."""

    def __init__(self, describer: Describer) -> None:
        self._describer = describer

    def routes(self) -> list[web.RouteDef]:
        return wire.with_and_without_v1(PATH, self._describe)

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        body = await read(request)
        self._refuse_what_it_lacks(body.asked)
        if body.asked.stream:
            return await self._stream(request, body)
        async with self._outcomes(body) as ready:
            outcomes = {index: outcome async for index, outcome in ready}
        _refuse_if_all_failed(outcomes)
        told = [{"index": n} | self._entry(outcomes[n], body.asked) for n in sorted(outcomes)]
        return web.json_response(
            {"data": told} if body.is_batch else self._entry(outcomes[0], body.asked)
        )

    async def _stream(self, request: web.Request, body: Request) -> web.StreamResponse:
        """Tell each picture as it is ready; failures wait for the first that is none."""
        begun, outcomes = time.monotonic(), dict[int, Outcome]()
        waiting: list[dict[str, object]] = []
        async with wire.EventStream(request) as events:
            async with self._outcomes(body) as ready:
                async for index, outcome in ready:
                    outcomes[index] = outcome
                    waiting.append(self._event(index, outcome, body.asked))
                    if _failed(outcomes) < len(outcomes):
                        await _send(events, waiting)
                        waiting.clear()
            _refuse_if_all_failed(outcomes)  # while it can still have a status of its own
            done = {"type": "image_descriptions.done", "model": self._name(body.asked)}
            counts = {"count": len(outcomes), "failed": _failed(outcomes)}
            ms = round((time.monotonic() - begun) * 1000, 1)
            await _send(events, [done | counts | {"ms": ms}])
        return events.response

    @asynccontextmanager
    async def _outcomes(self, body: Request) -> AsyncIterator[AsyncIterator[tuple[int, Outcome]]]:
        """Have all pictures described; gives each outcome as it is ready, with its index."""
        ready: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()
        room = asyncio.Semaphore(self._describer.at_once)

        async def describe(index: int, sent: Sent) -> None:
            async with room:
                ready.put_nowait((index, await self._outcome(sent, body.asked)))

        async def in_order_of_readiness() -> AsyncIterator[tuple[int, Outcome]]:
            for _ in body.sent:
                yield await ready.get()

        async with asyncio.TaskGroup() as tasks:
            for index, sent in enumerate(body.sent):
                tasks.create_task(describe(index, sent))
            yield in_order_of_readiness()

    async def _outcome(self, sent: Sent, asked: Asked) -> Outcome:
        try:
            return await self._describer.describe(sent, asked)
        except wire.ApiError as error:
            return error

    def _entry(self, outcome: Outcome, asked: Asked) -> dict[str, object]:
        if isinstance(outcome, wire.ApiError):
            return outcome.body
        return outcome.as_json(self._name(asked))

    def _event(self, index: int, outcome: Outcome, asked: Asked) -> dict[str, object]:
        if isinstance(outcome, wire.ApiError):  # openai-python ends a stream at a field `error`
            failure = outcome.body["error"]
            return {"type": "image_description.failed", "index": index, "failure": failure}
        told = outcome.as_json(self._name(asked))
        return {"type": "image_description.completed", "index": index} | told

    def _name(self, asked: Asked) -> str:
        return asked.model or self._describer.name

    def _refuse_what_it_lacks(self, asked: Asked) -> None:
        has = self._describer.tasks
        lacking = [task for task in asked.tasks if task not in has]
        if lacking:
            told = f"this model has no task {lacking[0].value}; it has {names_of(has)}"
            raise wire.ApiError(501, told, param="task", code="not_implemented")


async def _send(events: wire.EventStream, told: Iterable[dict[str, object]]) -> None:
    for event in told:
        await events.send(event, name=str(event["type"]))


def _failed(outcomes: Mapping[int, Outcome]) -> int:
    return sum(isinstance(outcome, wire.ApiError) for outcome in outcomes.values())


def _refuse_if_all_failed(outcomes: Mapping[int, Outcome]) -> None:
    """Raise what failed, if nothing else happened: ApiError 400 for several bad pictures."""
    in_order = [outcomes[index] for index in sorted(outcomes)]
    errors = [outcome for outcome in in_order if isinstance(outcome, wire.ApiError)]
    if len(errors) < len(outcomes):
        return
    ours = [error for error in errors if error.status >= 500]  # noqa: PLR2004
    if ours or len(errors) == 1:
        raise (ours or errors)[0]
    told = f"none of the {len(errors)} pictures can be described; the first: {errors[0].message}"
    raise wire.bad_request(told, param=errors[0].param, code=errors[0].code or "invalid_image")
