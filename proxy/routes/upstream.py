"""Requests of any kind for the model that the path names: /upstream/{model}/rest."""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import web

from proxy.body import read_blindly
from proxy.config import Config
from proxy.routes.inference import errand_for, no_such_model, target
from proxy.routes.keys import config_of
from proxy.routes.serving import serve


async def upstream(request: web.Request) -> web.StreamResponse:
    """Serve any request by the model that its path names; the rest of the path goes on as is."""
    config = config_of(request)
    raw_path, _, query = target(request).partition("?")
    segments = raw_path.removeprefix("/upstream/").split("/")
    model_id, rest = _longest_model(config, segments)
    tail = f"?{query}" if query else ""
    if not rest:
        kind = web.HTTPMovedPermanently if request.method == "GET" else web.HTTPPermanentRedirect
        raise kind(f"{raw_path}/{tail}")
    with await read_blindly(request, config.max_body_bytes, config.stall_timeout) as body:
        path = "/" + "/".join(rest[1:]) + tail
        return await serve(errand_for(request, model_id, path, body))


def _longest_model(config: Config, segments: list[str]) -> tuple[str, list[str]]:
    """Split off the longest head that is a model's name; the rest begins with an empty segment."""
    for count in range(len(segments), 0, -1):
        model_id = config.resolve(unquote("/".join(segments[:count])))
        if model_id is not None:
            rest = segments[count:]
            return model_id, ["", *rest] if rest else []
    raise no_such_model(config, unquote(segments[0]))
