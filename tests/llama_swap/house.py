"""Whole files as llama-swap's users have them, with echoes as everybody's `cmd:`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxy import __main__
from tests.proxy.served import Hotseat
from workers import wire
from workers.echo.mirror import Mirror

ECHO = f"{sys.executable} -P -m workers.echo --port ${{PORT}}"


def house(text: str = "", **models: str) -> str:
    """Write a config: `text`, with ECHO for an echo's command, and models by their switches.

    Each of these models answers with its own name unless its switches say otherwise.
    """
    entries = [
        f"  {name}: {{cmd: {json.dumps(f'{ECHO} --reply {name} {switches}')}}}\n"
        for name, switches in models.items()
    ]
    own = "".join(["models:\n", *entries] if models else [])
    return f"{text.replace('ECHO', ECHO)}\n{own}"


@dataclass(frozen=True)
class Told:
    """A request as it arrived at an echo that `tells`."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    reply: str | None
    pid: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def as_told(answer: Mapping[str, Any]) -> Told:
    headers = {name.lower(): value for name, value in answer["headers"]}
    body = base64.b64decode(answer["body"])
    told = {key: answer[key] for key in ("method", "path", "reply", "pid")}
    return Told(headers=headers, body=body, **told)


async def told(hotseat: Hotseat, path: str, method: str = "POST", **more: Any) -> Told:
    """Ask at `path`, and give what the worker saw of it."""
    async with hotseat.session.request(method, path, **more) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return as_told(answer)


@dataclass(frozen=True)
class Checked:
    """What `hotseat check` said."""

    status: int
    text: str


def checked(text: str, folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> Checked:
    """Run `hotseat check` on a config."""
    path = folder / "swap.yaml"
    path.write_text(text)
    return commanded(capsys, "check", "--config", str(path), *flags)


def commanded(capsys: pytest.CaptureFixture[str], *words: str) -> Checked:
    """Run a command of `hotseat` that ends by itself."""
    with pytest.raises(SystemExit) as ended:
        __main__.main(list(words))
    said = capsys.readouterr()
    status = ended.value.code
    return Checked(status if isinstance(status, int) else 0, said.out + said.err)


@dataclass(frozen=True)
class Program:
    """A `hotseat serve` of its own, and the lines that it has said."""

    process: asyncio.subprocess.Process
    lines: asyncio.Queue[str]

    async def said(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches."""
        while not (found := re.search(pattern, line := await self.lines.get())):
            assert line, f"it ended without {pattern}"
        return found

    async def listen(self) -> None:
        """Take its lines as they come: who is not read stands still some day."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.put_nowait(line.decode())
        self.lines.put_nowait("")


@contextlib.asynccontextmanager
async def started(*flags: str) -> AsyncIterator[tuple[Hotseat, Program]]:
    """Run `hotseat serve` with these flags for the length of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", "--listen", "127.0.0.1:0", *flags),
        stderr=asyncio.subprocess.PIPE,
    )
    program = Program(process, asyncio.Queue())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(program.listen())
        try:
            url = (await program.said(r"(https?://127.0.0.1:\d+)/v1"))[1]
            connector = aiohttp.TCPConnector(ssl=False)
            async with aiohttp.ClientSession(url, connector=connector) as session:
                yield Hotseat(url, session), program
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()


async def broken_stream(hotseat: Hotseat, model: str, **echo: Any) -> bytes:
    """Read a streamed chat that must break off; gives all that came before."""
    got = bytearray()
    with pytest.raises(aiohttp.ClientError):
        await _read_stream(hotseat, model, got, **echo)
    return bytes(got)


async def _read_stream(hotseat: Hotseat, model: str, got: bytearray, **echo: Any) -> None:
    async with hotseat.stream(model, **echo) as stream:
        async for chunk in stream.content.iter_any():
            got += chunk


def events(stream: bytes) -> list[Any]:
    """Give what a stream has said, but for comments and the mark of its end."""
    lines = [line for line in stream.splitlines() if line.startswith(b"data: {")]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


async def until_state(hotseat: Hotseat, model: str, state: str | None) -> None:
    """Ask until the model is in that state, None: not there; each question is a round trip."""
    while (await hotseat.running()).get(model, {}).get("state") != state:
        pass


async def until_listed(hotseat: Hotseat, model: str) -> None:
    """Ask until there is such a model, as after a reload."""
    while (await hotseat.get(f"/v1/models/{model}")).status != 200:
        pass


async def pid_of(hotseat: Hotseat, model: str) -> int:
    """Tell which process serves the model, and be sure that one does."""
    entry = (await hotseat.running())[model]
    assert entry["state"] == "ready"
    return int(entry["pid"])


@contextlib.asynccontextmanager
async def peer() -> AsyncIterator[str]:
    """Serve, for the block, another server that tells what arrived; gives its address."""
    app = wire.application()
    app.add_routes(Mirror("peer").routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
