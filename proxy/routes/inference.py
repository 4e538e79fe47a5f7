"""Requests for a model: find who is meant, see that he can, and send it on its errand."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial

from aiohttp import web

from proxy.body import Body, Edit, Peek, peek_query, read_blindly, read_body, renamed_in
from proxy.config import Config, Filters, ModelConfig
from proxy.errors import BadRequest, HotseatError, ModelNotFound, NotFound
from proxy.forward import Errand
from proxy.routes import access, paths, remote
from proxy.routes.checkpoint import CHECKPOINT
from proxy.routes.destination import Load, Local, Place, find, listed_names, no_such_model
from proxy.routes.inflight import INFLIGHT
from proxy.routes.keys import POOL, config_of
from proxy.routes.painting import paint
from proxy.routes.profiles import ACTIVE
from proxy.routes.serving import Run, serve
from proxy.wishes import STRIPPED, wish_of


async def dispatch(request: web.Request) -> web.StreamResponse:
    """Serve a request by the model that it names: a POST in its body, a GET in its query."""
    config = config_of(request)
    with ExitStack() as held:
        body = held.enter_context(await _read(request, config))
        name = _name(request, config, body.peek)
        pins = request.app[ACTIVE].pins(config)
        place = find(config, name, pins, partial(_look, request))
        path = paths.upstream_path(target(request))
        if isinstance(place, Local):
            refuse_what_it_cannot(config, place.model_id, request.path, body.peek)
        edit = edit_for(config, place, body.peek)
        body.edit(edit)
        if edit.model is not None and request.method != "POST":
            path = renamed_in(path, edit.model)
        if request.method == "POST" and paths.is_painted(request.path):
            return await paint(errand_for(request, place, path, body), _run_of(place), held)
        return await send(request, place, path, body)


async def send(request: web.Request, place: Place, path: str, body: Body) -> web.StreamResponse:
    """Let whoever has the place answer the request at this path. Raises BadRequest."""
    return await serve(errand_for(request, place, path, body), _run_of(place))


def _run_of(place: Place) -> Run | None:
    """Tell how who has the place is asked; None: as a worker of ours."""
    return None if isinstance(place, Local) else partial(remote.ask, model=place)


def errand_for(request: web.Request, place: Place, path: str, body: Body) -> Errand:
    """Gather what is known of a request before it waits. Raises BadRequest for odd wishes."""
    config = config_of(request)
    own = config.priority_of(place.model_id) if isinstance(place, Local) else 0
    return Errand(
        request,
        place.name,
        path,
        body,
        config,
        wish=wish_of(request.headers, body.peek, access.priority_of_key(request), own),
        withheld=access.withheld(request),
    )


def edit_for(config: Config, place: Place, peek: Peek) -> Edit:
    """Tell how the body is to be told: by which name, without what, and with what besides."""
    if isinstance(place, Local):
        model = config.models[place.model_id]
        filters, asked, told = model.filters, place.asked, model.use_model_name or place.asked
    else:
        filters, asked, told = config.peers[place.peer_id].filters, place.model, place.model
    has_ours = not (peek.keep_alive is peek.priority is peek.on_disconnect is None)
    return Edit(
        told if told != peek.model else None,
        (*(STRIPPED if has_ours else ()), *filters.strip_params),
        (*filters.set_params.items(), *_params_by_id(filters, asked)),
    )


def _params_by_id(filters: Filters, asked: str) -> list[tuple[str, object]]:
    return [*filters.set_params_by_id.get(asked, {}).items()]


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


def refuse_what_it_cannot(config: Config, model_id: str, path: str, peek: Peek) -> None:
    """Raise BadRequest before a swap is spent on a request that must fail."""
    model = config.models[model_id]
    need, words = paths.need_of(path), model.words
    if model.kind != "cmd" and not paths.is_bundled(path):
        told = f"{model_id} runs on the bundled worker {model.kind}, which serves no {path}"
        raise BadRequest(told, param="model", code="model_cannot")
    if words is None or need is None:
        return  # a `cmd` that does not say what it can do, or a path that only its worker knows
    if need not in words:
        raise _cannot(config, model_id, model, need, "model_cannot")
    if peek.has_pictures and "vision" not in words:
        raise _cannot(config, model_id, model, "vision", "model_cannot_see")


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


def _look(request: web.Request) -> Load:
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


def _cannot(config: Config, model_id: str, model: ModelConfig, need: str, code: str) -> BadRequest:
    able = [name for name, other in config.models.items() if need in (other.words or ())]
    instead = f"ask one of: {', '.join(able)}" if able else "no model here can"
    told = f"{model_id} is for {', '.join(model.words or ())}, not for {need}; {instead}"
    return BadRequest(told, param="model", code=code)
