"""What holds for every answer: OpenAI errors as JSON, and CORS."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.errors import BodyTooLarge, HotseatError, MethodNotAllowed, NotFound

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEFAULT_HEADERS = "Content-Type, Authorization, Accept, X-Requested-With"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.6.2
REASON_CHARACTERS = 120


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Render every failure as OpenAI's error object, the router's own too."""
    try:
        return await handler(request)
    except HotseatError as error:
        log.info("refused", extra={"path": request.path, "code": error.code, "why": error.message})
        return render(error)
    except web.HTTPNotFound:
        return render(NotFound(f"no such path: {request.method} {request.path}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = render(MethodNotAllowed(f"{request.path} takes {allowed}, not {error.method}"))
        answer.headers["Allow"] = allowed
        return answer
    except web.HTTPRequestEntityTooLarge as error:
        return render(BodyTooLarge(error.text or "the body is too large"))
    except web.HTTPException:
        raise
    except Exception:  # the last door: tell the client, keep the traceback
        log.exception("request_broke", extra={"path": request.path})
        return render(HotseatError("an error of the proxy's own; its log has the details"))


def render(error: HotseatError) -> web.Response:
    """Make the answer; the reason phrase says it too, as Open WebUI shows nothing else."""
    phrase = re.sub(r"[^\x20-\x7e]+", " ", error.message)[:REASON_CHARACTERS]
    return web.json_response(error.body, status=error.status, reason=phrase, headers=error.headers)


async def allow_any_origin(_request: web.Request, response: web.StreamResponse) -> None:
    """Let pages of any origin read every answer, errors too."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Expose-Headers"] = "*"  # a page shall see ours too


@web.middleware
async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a CORS preflight for any path, allowing the headers that are asked for."""
    if request.method != "OPTIONS":
        return await handler(request)
    asked = request.headers.get("Access-Control-Request-Headers", "")
    names = [name.strip() for name in asked.split(",")]
    allowed = ", ".join(name for name in names if _TOKEN.fullmatch(name))
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": allowed or DEFAULT_HEADERS,
            "Access-Control-Max-Age": "86400",
        },
    )
