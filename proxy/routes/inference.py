"""Requests for a model: find who is meant, see that he can, and send it on its errand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from aiohttp import web

from proxy.body import Body, Edit, Peek, peek_query, read_blindly, read_body, renamed_in
from proxy.config import Config
from proxy.errors import BadRequest, HotseatError, ModelNotFound, NotFound
from proxy.routes import paths, remote
from proxy.routes.able import refuse_what_it_cannot
from proxy.routes.checkpoint import CHECKPOINT
from proxy.routes.destination import Load, Local, Place, find, listed_names, no_such_model
from proxy.routes.errands import edit_for, errand_for
from proxy.routes.inflight import INFLIGHT
from proxy.routes.keys import POOL, config_of
from proxy.routes.painting import paint
from proxy.routes.profiles import ACTIVE
from proxy.routes.safety import see_it_may
from proxy.routes.serving import Run, attempt_twice, serve
from proxy.routes.sight import seeing, sight_of


async def dispatch(request: web.Request) -> web.StreamResponse:
    """Serve a request by the model that it names: a POST in its body, a GET in its query."""
    config = config_of(request)
    with ExitStack() as held:
        body = held.enter_context(await _read(request, config))
        look = partial(_look, request)
        place = _place(request, config, body.peek, look)
        if isinstance(place, Local):
            refuse_what_it_cannot(config, place.model_id, request.path, look)
        sight = await sight_of(request, place, body, look)
        if request.method == "POST":
            await see_it_may(request, place, request.path, body)
        edit = edit_for(config, place, body.peek)
        body.edit(edit)
        errand = errand_for(request, place, _path(request, edit), body)
        run, first = _run_of(place), partial(seeing, sight, edit)
        if paths.is_painted(request.path):
            return await paint(errand, run, first, held)
        return await serve(errand, first(run or attempt_twice))


async def send(request: web.Request, place: Place, path: str, body: Body) -> web.StreamResponse:
    """Let whoever has the place answer the request at this path. Raises BadRequest."""
    return await serve(errand_for(request, place, path, body), _run_of(place))


def _run_of(place: Place) -> Run | None:
    """Tell how who has the place is asked; None: as a worker of ours."""
    return None if isinstance(place, Local) else partial(remote.ask, model=place)


def target(request: web.Request) -> str:
    """Give path and query as they came; of an absolute target (RFC 9112 §3.2.2) that part."""
    raw = request.raw_path
    return raw if raw.startswith("/") else request.rel_url.raw_path_qs


def find_model(config: Config, name: str | None) -> str:
    """Resolve the id or alias of a model of ours. Raises BadRequest or ModelNotFound."""
    if not name:
        raise BadRequest(_told_names(config, "name a model"), param="model", code="missing_model")
    model_id = config.resolve(name)
    if model_id is not None:
        return model_id
    if selector := config.selectors.get(name):
        told = f"{name} is a selector; name one of its targets: {', '.join(selector.targets)}"
        raise ModelNotFound(told, param="model")
    if peer := config.peer_models.get(name):
        told = f"{name} is a model of the peer {peer.peer_id}: it does not run here"
        raise ModelNotFound(told, param="model")
    raise no_such_model(config, name)


async def _read(request: web.Request, config: Config) -> Body:
    """Read the body. Raises as `read_body` does, and NotFound where only a name makes a path."""
    limits = config.max_body_bytes, config.stall_timeout
    if request.method == "POST":
        try:
            return await read_body(request, *limits)
        except BadRequest:
            if request.path in paths.POSTED:
                raise
            raise _no_path(request) from None
    peek, _ = peek_query(request.rel_url.raw_query_string.encode())
    return await read_blindly(request, *limits, peek)


def _place(request: web.Request, config: Config, peek: Peek, look: Callable[[], Load]) -> Place:
    """Find who is to answer. Raises BadRequest, NotFound and ModelNotFound."""
    name, pins = _name(request, config, peek), request.app[ACTIVE].pins(config)
    return find(config, name, pins, look, has_pictures=peek.has_pictures)


def _path(request: web.Request, edit: Edit) -> str:
    """Tell where it is asked, and with which query: a GET has the model's name in there."""
    path = paths.upstream_path(target(request))
    if edit.model is None or request.method == "POST":
        return path
    return renamed_in(path, edit.model)


def _look(request: web.Request) -> Load:
    """Tell how busy everybody is."""
    running = request.app[POOL].standing.running()
    states = {str(worker.model): worker.state for worker in running}
    errands = (flight.errand for flight in request.app[INFLIGHT])
    # what is asked of a worker directly is mostly a page or a look at it, and no load
    counts = Counter(e.model_id for e in errands if not e.request.path.startswith("/upstream/"))
    return Load(states, counts)


def _no_path(request: web.Request) -> NotFound:
    told = "nor is there a body that names the model to ask"
    return NotFound(f"no such path: {request.method} {request.path}, {told}")


def _name(request: web.Request, config: Config, peek: Peek) -> str:
    """Tell which model is asked for. Raises BadRequest or NotFound where none is."""
    if peek.model:
        return peek.model
    if paths.has_checkpoint(request.path):
        name = peek.checkpoint or request.app[CHECKPOINT].name(config)
        if name is not None:
            return name
    raise _no_name(config, request)


def _no_name(config: Config, request: web.Request) -> HotseatError:
    if request.method == "POST" and request.path not in paths.POSTED:
        return _no_path(request)
    where = "body" if request.method == "POST" else "query"
    told = _told_names(config, f"the {where} must name a model")
    return BadRequest(told, param="model", code="missing_model")


def _told_names(config: Config, what: str) -> str:
    return f"{what}; there are: {', '.join(listed_names(config))}"
