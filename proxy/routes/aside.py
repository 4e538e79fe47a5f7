"""A question of our own to a model of ours, in the course of a client's request.

It takes a turn at the worker as any request does: it waits in the queue, has its line in the log,
its place among those in flight and in the activity, the request's urgency and deadline (counted
anew), and ends when the client leaves. Only its answer goes elsewhere: into memory, to us.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from proxy.body import body_of
from proxy.errors import AsideFailed, BadRequest, HotseatError
from proxy.forward import ERROR_STATUS
from proxy.routes.destination import Local
from proxy.routes.errands import edit_for, errand_for
from proxy.routes.keys import config_of
from proxy.routes.serving import serve
from proxy.wishes import PRIORITY, TIMEOUT

MOST_BYTES = 4 << 20
CLIENTS_MISTAKES = (400, 413)
"""What a worker answers when it does not like what it was asked, not when it cannot."""
WORDS_CHARACTERS = 500


async def ask(
    request: web.Request,
    model_id: str,
    path: str,
    document: bytes,
    *,
    most_bytes: int = MOST_BYTES,
) -> bytes:
    """Post a JSON object to the model's worker and give its whole answer, `most_bytes` at most.

    The model's name is put into it here. Must be called before the request takes a turn of its
    own: two models that share a seat would wait for each other for ever. Raises an error of
    `errors` that names the model; BadRequest is what the worker has against the document itself.
    """
    config, place = config_of(request), Local(model_id, model_id)
    body = body_of(document)
    body.edit(edit_for(config, place, body.peek))
    errand = errand_for(_own(request, path), place, path, body)
    errand.outlet = heard = _Heard(most_bytes)
    response = await serve(errand)
    if heard.is_too_long or heard.is_cut:
        what = f"has more than {most_bytes} bytes" if heard.is_too_long else "broke off"
        raise AsideFailed(f"the answer of {model_id}, which was asked on the way, {what}")
    if response.status >= ERROR_STATUS:
        raise _refused(model_id, response.status, bytes(heard.raw))
    return bytes(heard.raw)


def _own(request: web.Request, path: str) -> web.Request:
    """Make a request for the path that comes and goes with the client's."""
    headers = {"Content-Type": "application/json", **dict(_kept(request))}
    return request.clone(method="POST", rel_url=path, headers=headers)


def _kept(request: web.Request) -> Iterator[tuple[str, str]]:
    """Name what a question has of its request: how urgent, how long, by which host, whose."""
    sessions = config_of(request).ui.activity.session_id
    for name in ("Host", PRIORITY, TIMEOUT, *sessions):
        value = request.headers.get(name)
        if value is not None and value.isascii():  # a clone can hold no other
            yield name, value


def _refused(model_id: str, status: int, raw: bytes) -> HotseatError:
    """Make the error for an answer that is one."""
    told, code = _told(raw)
    message = f"{model_id}, which was asked on the way, answered {status}: {told or 'no word'}"
    if status in CLIENTS_MISTAKES:
        return BadRequest(message, code=code)
    return AsideFailed(message)


def _told(raw: bytes) -> tuple[str, str | None]:
    """Read message and code of an error, as far as there are such."""
    with suppress(ValueError, LookupError, TypeError):
        error = json.loads(raw)["error"]
        code = error.get("code")
        return str(error["message"])[:WORDS_CHARACTERS], code if isinstance(code, str) else None
    return "", None


class _Heard:
    """An outlet into memory."""

    def __init__(self, most_bytes: int) -> None:
        self.raw = bytearray()
        self.is_cut = self.is_too_long = False
        self._most_bytes = most_bytes

    def begin(
        self, status: int, reason: str | None, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        return _ToMemory(self, status, reason, headers)

    def cut(self, _request: web.Request) -> None:
        self.is_cut = True

    def take(self, data: bytes | bytearray | memoryview) -> None:
        """Take more. Raises AsideFailed when it is too much, which ends the worker's work."""
        self.is_too_long = len(self.raw) + len(data) > self._most_bytes
        if self.is_too_long:
            raise AsideFailed(f"an answer of more than {self._most_bytes} bytes")
        self.raw += data


class _ToMemory(web.StreamResponse):
    """What forwarding writes to."""

    def __init__(
        self, heard: _Heard, status: int, reason: str | None, headers: Mapping[str, str]
    ) -> None:
        super().__init__(status=status, reason=reason, headers=headers)
        self._heard = heard

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._heard.take(data)

    async def write_eof(self, data: bytes = b"") -> None:
        self._heard.take(data)
