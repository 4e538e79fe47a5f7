"""Requests of any kind for the model that the path names: /upstream/{model}/rest.

The rest of the path and the query go on as they came, escapes and all; the body is not looked at,
but where `safety` holds.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import unquote

from aiohttp import web

from proxy.body import read_blindly, read_body
from proxy.config import Config
from proxy.errors import BadRequest, ModelNotFound, NotReady, WorkerDied
from proxy.forward import Errand, NotSent
from proxy.forward.tunnel import is_websocket, tunnel
from proxy.routes import paths
from proxy.routes.destination import Local, Place, exact, no_such_model
from proxy.routes.errands import errand_for
from proxy.routes.inference import send, target
from proxy.routes.keys import POOL, config_of
from proxy.routes.profiles import ACTIVE
from proxy.routes.safety import is_held_to_terms, see_it_may, see_it_shows_nothing
from proxy.routes.serving import attempt_twice, serve
from proxy.seat import Seat

JOBS_OF_ALL = ("/progress", "/interrupt")
COMFYUI = "comfyui_auto"
"""The model that is also found at /comfyui."""


async def upstream(request: web.Request) -> web.StreamResponse:
    """Serve any request by the model that its path names."""
    config = config_of(request)
    raw_path, _, query = target(request).partition("?")
    segments = raw_path.removeprefix("/upstream/").split("/")
    place, rest = _longest_name(request, config, segments)
    if not rest:
        raise _to_slash(request, raw_path, query)
    path = "/" + "/".join(rest[1:])
    if isinstance(place, Local) and config.ignored_at_upstream(unquote(path)):
        _refuse_unless_ready(request, place.model_id, "path matches upstream.ignorePaths")
    return await _send(request, place, path, query)


async def comfyui(request: web.Request) -> web.StreamResponse:
    """Serve a page of a model that is called `comfyui_auto`; only the page itself may load it."""
    if COMFYUI not in config_of(request).models:
        raise ModelNotFound(f"no model here is called {COMFYUI}", param="model")
    raw_path, _, query = target(request).partition("?")
    path = raw_path.removeprefix("/comfyui")
    if not path:
        raise _to_slash(request, raw_path, query)
    if path != "/":
        _refuse_unless_ready(request, COMFYUI, "only /comfyui/ itself loads it")
    return await _send(request, Local(COMFYUI, COMFYUI), path, query)


async def _send(request: web.Request, place: Place, path: str, query: str) -> web.StreamResponse:
    config, path = config_of(request), f"{path}?{query}" if query else path
    if is_websocket(request):
        return await _open_tunnel(request, place, path)
    limits = config.max_body_bytes, config.stall_timeout
    see_it_shows_nothing(config, place, path)
    _refuse_jobs_of_all(config, place, path)
    if request.method != "POST" or not is_held_to_terms(config, place, path):
        with await read_blindly(request, *limits) as body:
            return await send(request, place, path, body)
    with await read_body(request, *limits) as body:
        await see_it_may(request, place, path, body)
        return await send(request, place, path, body)


def _refuse_jobs_of_all(config: Config, place: Place, path: str) -> None:
    """Raise BadRequest where a worker of ours tells of the jobs of every key, or ends them."""
    is_ours = isinstance(place, Local) and config.models[place.model_id].kind != "cmd"
    if config.api_keys and is_ours and paths.plainly(path).endswith(JOBS_OF_ALL):
        told = "a job belongs to the key that made it: ask /api/jobs"
        raise BadRequest(told, code="jobs_have_owners")


async def _open_tunnel(request: web.Request, place: Place, path: str) -> web.StreamResponse:
    if not isinstance(place, Local):
        raise BadRequest(f"websockets are not carried on to peers, where {place.name} is")
    if not web.WebSocketResponse().can_prepare(request):
        raise BadRequest("this is no valid websocket handshake (RFC 6455 section 4.2.1)")
    with await read_blindly(request, 0, 1.0) as body:
        errand = errand_for(request, place, path, body)
        if not errand.config.models[place.model_id].compat.ignore_websockets:
            return await serve(errand, partial(attempt_twice, carry=tunnel))
        return await _tunnel_beside(errand)


async def _tunnel_beside(errand: Errand) -> web.StreamResponse:
    """Open a tunnel that holds no lease: the model may leave, and the tunnel ends."""
    told = "ignored websocket requests cannot start it (compat.ignoreWebsockets)"
    _refuse_unless_ready(errand.request, errand.model_id, told)
    seat = errand.request.app[POOL].standing.ready_seat(errand.model_id)
    if seat is None:
        raise NotReady(f"model {errand.model_id} is not loaded; {told}")
    return await serve(errand, partial(_tunnel_to, seat=seat))


async def _tunnel_to(errand: Errand, seat: Seat) -> web.StreamResponse:
    try:
        return await tunnel(errand, seat)
    except NotSent as error:
        raise WorkerDied(f"{errand.model_id} cannot be reached: {error}") from error


def _refuse_unless_ready(request: web.Request, model_id: str, why: str) -> None:
    if request.app[POOL].standing.ready_seat(model_id) is None:
        raise NotReady(f"model {model_id} is not loaded; {why}", param="model")


def _to_slash(request: web.Request, raw_path: str, query: str) -> web.HTTPException:
    """Lead to the same path with a slash, under which a page's own links work."""
    is_read = request.method in ("GET", "HEAD")
    kind = web.HTTPMovedPermanently if is_read else web.HTTPPermanentRedirect
    return kind(f"{raw_path}/?{query}" if query else f"{raw_path}/")


def _longest_name(
    request: web.Request, config: Config, segments: list[str]
) -> tuple[Place, list[str]]:
    """Split off the longest head that is a name; the rest begins with an empty segment."""
    pins = request.app[ACTIVE].pins(config)
    most = 1 + max(name.count("/") for name in (*config.names, *config.peer_models, *pins))
    for count in range(min(most, len(segments)), 0, -1):  # a path may have thousands
        place = exact(config, unquote("/".join(segments[:count])), pins)
        if place is not None:
            rest = segments[count:]
            return place, ["", *rest] if rest else []
    raise no_such_model(config, unquote(segments[0]))
