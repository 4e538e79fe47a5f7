"""The pictures in an answer, and the command that judges them before they leave."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from proxy.config import OutputConfig, is_label

REFUSED = 1
UNNAMED = "output"
"""The label where a command refuses a picture and does not say why."""
SHORTEST = 32
_EVENT, _DONE = b"data:", b"[DONE]"


class OutputFailed(Exception):
    """The command could not judge; says why."""


def pictures_in(raw: bytes, is_picture: Callable[[bytes], bool]) -> Iterator[bytes]:
    """Yield the pictures of an answer: the whole of it, or base64 in JSON or in JSON events.

    Raises ValueError for what cannot be read to its end: a part of a picture may stand there.
    """
    if is_picture(raw):
        yield raw
        return
    for document in _documents(raw):
        for text in _strings(document):
            picture = _decoded(text)
            if picture is not None and is_picture(picture):
                yield picture


async def judged(picture: bytes, output: OutputConfig, folder: Path) -> str | None:
    """Let the command judge a picture: the label of a refusal, or None. Raises OutputFailed.

    It runs in `folder`, gets the picture on stdin, and ends with 0, or with 1 and the label as
    the first line of its stdout. Anything else, and taking too long, is no judgement.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *output.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise OutputFailed(f"it cannot be run: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(output.timeout):
            told, _ = await process.communicate(picture)
    except TimeoutError:
        raise OutputFailed(f"it has not ended within {output.timeout:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
        await process.wait()
    return _verdict(process.returncode, told)


def _verdict(status: int | None, told: bytes) -> str | None:
    if status == 0:
        return None
    if status != REFUSED:
        raise OutputFailed(f"it ended with {status}, which is neither 0 nor 1")
    label = told.decode("utf-8", "replace").partition("\n")[0].strip()
    return label if is_label(label) else UNNAMED


def _documents(raw: bytes) -> Iterator[object]:
    if raw.lstrip()[:1] in (b"{", b"["):
        yield json.loads(raw)
        return
    for line in raw.split(b"\n"):
        text = line.removeprefix(_EVENT).strip()
        if line.startswith(_EVENT) and text != _DONE:
            yield json.loads(text)


def _strings(value: object) -> Iterator[str]:
    match value:
        case str() if len(value) >= SHORTEST:
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            for item in value.values():
                yield from _strings(item)
        case _:
            pass


def _decoded(text: str) -> bytes | None:
    """Read base64, or a data URI of it."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    with suppress(binascii.Error, ValueError):
        return base64.b64decode(text, validate=True)
    return None
