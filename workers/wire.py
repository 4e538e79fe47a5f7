"""What every worker speaks: JSON bodies in, OpenAI errors and event streams out."""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

from aiohttp import web
from multidict import MultiDictProxy
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

log = logging.getLogger(__name__)

REASON_CHARACTERS = 120

T = TypeVar("T", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An answer in OpenAI's error shape; the message says what to do next."""

    headers: Mapping[str, str] = {}

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, object]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"  # noqa: PLR2004
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


class OutOfMemory(ApiError):
    """Memory ran out during a request: 503, with a header that tells the proxy the reason.

    The worker lives on. The proxy may make room and send the request again.
    """

    headers: Mapping[str, str] = {"X-Hotseat-Reason": "out_of_memory"}

    def __init__(self, message: str) -> None:
        super().__init__(503, message, code="capacity_exceeded")


def bad_request(
    message: str, *, param: str | None = None, code: str = "invalid_value"
) -> ApiError:
    """Make the error for what the client can mend: always 400, as SDKs retry 422 and 5xx."""
    return ApiError(400, message, code=code, param=param)


class Body(BaseModel):
    """A request body: unknown fields pass (clients send many), nulls mean the default."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


def or_default(default: Any) -> BeforeValidator:
    """Take a JSON null for `default`: openai-python sends None as null."""
    return BeforeValidator(lambda value: default if value is None else value)


Flag = Annotated[bool, or_default(default=False)]


async def read_body(request: web.Request, shape: type[T]) -> T:
    """Read a JSON body into `shape`. Raises ApiError 400 naming the first wrong field."""
    return parse_body(await request.read(), shape)


def parse_body(raw: bytes | str, shape: type[T]) -> T:
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        raise _as_api_error(error) from None


def parse_fields(fields: dict[str, Any], shape: type[T]) -> T:
    """Read form fields, all of them text, into `shape`. Raises ApiError 400."""
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        raise _as_api_error(error) from None


async def read_form(
    request: web.Request,
) -> MultiDictProxy[str | bytes | bytearray | web.FileField]:
    """Read a form. Raises ApiError 400 for no boundary, a cut one, and odd encodings; 413."""
    try:
        return await request.post()
    except web.HTTPRequestEntityTooLarge:  # bytes are the proxy's to bound: it is the fields
        told = "the form has too many fields; send fewer"
        raise ApiError(413, told, code="too_many_fields") from None
    except (ValueError, LookupError, RuntimeError, zlib.error) as error:  # as aiohttp raises them
        raise bad_request(f"the form cannot be read: {error}", code="invalid_form") from None


def _as_api_error(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return bad_request(f"the body is not valid JSON: {first['msg']}", code="invalid_json")
    param = ".".join(str(part) for part in first["loc"]) or None
    code = "missing_field" if first["type"] == "missing" else "invalid_value"
    return bad_request(f"{param or 'body'}: {first['msg']}", param=param, code=code)


def application() -> web.Application:
    """Make an application whose every error is OpenAI's."""
    # the proxy bounds bodies, before a swap is spent on them; 0: no second bound here
    return web.Application(middlewares=[_errors_as_json], client_max_size=0)


def with_and_without_v1(path: str, handler: Handler, method: str = "POST") -> list[web.RouteDef]:
    """Name one handler at `path` under /v1 and at the root: real clients call both."""
    return [web.route(method, f"/v1{path}", handler), web.route(method, path, handler)]


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _render(error)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004
            raise
        return _render(ApiError(error.status, f"{error.reason}: {request.method} {request.path}"))
    except MemoryError:
        log.exception("out_of_memory")
        return _render(OutOfMemory("the host has no memory left for this; ask for less"))
    except Exception:  # the last door of the process: tell the client, keep the traceback
        log.exception("request_failed")
        told = "the worker met an error of its own; see its log"
        return _render(ApiError(500, told, code="internal"))


def _render(error: ApiError) -> web.Response:
    """Make the answer; the reason phrase says it too, as Open WebUI shows nothing else."""
    phrase = re.sub(r"[^\x20-\x7e]+", " ", error.message)[:REASON_CHARACTERS]
    # SDKs would try a failed generation twice more, each time a job for the GPU
    retry = {"x-should-retry": "false"} if error.status >= 500 else {}  # noqa: PLR2004
    headers = {**retry, **error.headers}
    return web.json_response(error.body, status=error.status, reason=phrase, headers=headers)


class EventStream:
    """A `text/event-stream` answer; an error inside it becomes an event and a cut connection.

    ``async with EventStream(request) as events: await events.send({...})``. The headers go out
    with the first event, so that an error before it is still a plain answer with its status. A
    block that ends well ends with ``data: [DONE]`` unless `done` is False.
    """

    def __init__(self, request: web.Request, *, done: bool = True) -> None:
        self._request = request
        self._done = done
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )

    async def __aenter__(self) -> Self:
        return self

    async def send(self, event: object, *, name: str | None = None) -> None:
        text = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        await self._write(f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n")

    async def _write(self, text: str) -> None:
        if not self.response.prepared:
            await self.response.prepare(self._request)
        # a model can say half a surrogate pair
        await self.response.write(text.encode(errors="replace"))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if kind is None:
            if self._done:
                await self._write("data: [DONE]\n\n")
            await self.response.write_eof()
            return
        if not self.response.prepared or not isinstance(error, Exception):
            return
        told = error if isinstance(error, ApiError) else ApiError(500, str(error), code="internal")
        await self.send(told.body)
        if self._request.transport is not None:
            self._request.transport.abort()  # a clean end would make the answer look whole
