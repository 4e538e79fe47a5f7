"""Interim responses, which break the silence for who waits for a whole answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from proxy.routes.pulse import INTERIM
from tests.proxy.served import Gate, Hotseat, chat_body, served

NOTES = "waitingNotes: 50ms\n"
CHAT, PAINT = "/v1/chat/completions", "/v1/images/generations?async=1"
OPENAI, PLAIN = "AsyncOpenAI/Python 3.54.0", "Python-urllib/3.11"


@asynccontextmanager
async def asked(
    hotseat: Hotseat, work: Gate, *, agent: str = OPENAI, path: str = CHAT, http: str = "1.1"
) -> AsyncIterator[asyncio.StreamReader]:
    """Ask for something that stands at a gate, and give what comes back, as it comes."""
    body = json.dumps(chat_body("a", "hi", gate=str(work.path))).encode()
    head = (
        f"POST {path} HTTP/{http}\r\nHost: x\r\nUser-Agent: {agent}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(hotseat.url).port)
    writer.write(head.encode() + body)
    yield reader
    writer.close()


async def test_who_skips_interim_responses_hears_them_until_the_answer(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Some while the model loads, some while it works, and none once its answer began."""
    load, work = gate(), gate()
    config = f"{NOTES}models: {{a: {{echo: {{load_gate: '{load.path}'}}}}}}"
    async with served(config, tmp_path) as hotseat, asked(hotseat, work) as reader:
        assert await reader.readexactly(2 * len(INTERIM)) == 2 * INTERIM
        await load.pass_one()
        await work.reached()
        assert await reader.readexactly(len(INTERIM)) == INTERIM
        work.open()
        rest = await reader.read()

    answer = rest[rest.index(b"HTTP/1.1 200") :]
    assert answer.count(b"HTTP/1.1") == 1
    assert b"echo: hi" in answer


@pytest.mark.parametrize(
    "asking",
    [
        {"agent": PLAIN},
        {"http": "1.0"},
        {"path": PAINT},
    ],
    ids=["may take it for the answer", "an older HTTP", "was answered already"],
)
async def test_others_hear_nothing_but_their_answer(
    tmp_path: Path, gate: Callable[[], Gate], asking: dict[str, str]
) -> None:
    """While somebody beside them hears three, they hear none."""
    work, beside = gate(), gate()
    async with (
        served(f"{NOTES}models: {{a: {{echo: {{}}}}}}", tmp_path) as hotseat,
        asked(hotseat, work, **asking) as reader,
    ):
        await work.reached()
        async with asked(hotseat, beside) as other:
            await beside.reached()
            assert await other.readexactly(3 * len(INTERIM)) == 3 * INTERIM
            beside.open()
        work.open()
        raw = await reader.read()

    assert raw.split(b" ", 2)[1] in (b"200", b"202")
    assert b"102 Processing" not in raw
