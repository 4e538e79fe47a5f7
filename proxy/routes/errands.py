"""What is known of a request before it waits, and what its body is told on the way."""

from __future__ import annotations

from aiohttp import web

from proxy.body import Body, Edit, Peek
from proxy.config import Config
from proxy.forward import Errand
from proxy.routes import access
from proxy.routes.destination import Local, Place
from proxy.routes.keys import config_of
from proxy.wishes import STRIPPED, wish_of


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
        (*filters.set_params.items(), *filters.set_params_by_id.get(asked, {}).items()),
    )
