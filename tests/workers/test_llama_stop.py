"""How the llama worker stops: an answer, and itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.workers import launch

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]


@pytest.fixture
async def endless(models: Path) -> AsyncIterator[launch.Launched]:
    """Give a model that never comes to an end, with one sequence."""
    options = {"model": str(models / "endless.gguf"), "n_parallel": 1, "n_ctx": 1 << 16}
    async with launch.launched("llama", options | {"n_threads": 1}) as ready:
        yield ready


def body(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Go on"}], **more}


async def begun(worker: launch.Launched, **more: Any) -> aiohttp.ClientResponse:
    """Start a stream and see its first bytes."""
    answer = await worker.session.post("/v1/chat/completions", json=body(stream=True, **more))
    assert answer.status == 200
    await answer.content.readline()
    return answer


async def counts(worker: launch.Launched) -> dict[str, int]:
    async with worker.session.get("/props") as answer:
        return (await answer.json())["counts"]


async def test_leaving_a_stream_stops_it(endless: launch.Launched) -> None:
    """The only sequence is free for the next request when the client of an endless one goes."""
    stream = await begun(endless)

    stream.close()
    told = await endless.post("/v1/chat/completions", body(max_tokens=3))

    assert told["usage"]["completion_tokens"] == 3
    assert (await counts(endless))["cancelled"] == 1


async def test_leaving_takes_what_waits_along(endless: launch.Launched) -> None:
    """A second choice that waits behind the first is given up with it."""
    stream = await begun(endless, n=2)

    stream.close()
    await endless.post("/v1/chat/completions", body(max_tokens=3))

    final = await counts(endless)
    assert (final["cancelled"], final["busy"], final["waiting"]) == (2, 0, 0)


async def test_leaving_an_answer_that_is_not_streamed_stops_it(endless: launch.Launched) -> None:
    """A client whose patience ends frees the sequence, though it has seen no byte."""
    patience = aiohttp.ClientTimeout(total=0.3)

    with pytest.raises(TimeoutError):
        await endless.session.post("/v1/chat/completions", json=body(), timeout=patience)
    await endless.post("/v1/chat/completions", body(max_tokens=3))

    assert (await counts(endless))["cancelled"] == 1


async def test_sigterm_ends_the_process_in_the_middle(endless: launch.Launched) -> None:
    """SIGTERM is obeyed at once and with status 0, and the stream is seen to be cut."""
    stream = await begun(endless)

    endless.process.send_signal(signal.SIGTERM)
    status = await asyncio.wait_for(endless.process.wait(), 5)

    assert status == 0
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.read()


async def test_end_of_stdin_ends_the_process(endless: launch.Launched) -> None:
    """A worker whose proxy is gone does not stay."""
    await begun(endless)

    assert endless.process.stdin is not None
    endless.process.stdin.close()

    await asyncio.wait_for(endless.process.wait(), 5)
