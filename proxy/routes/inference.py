"""Requests for a model: find it, see that it can, and send it on its errand."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from proxy.body import Body, Peek, read_body
from proxy.config import Config, ModelConfig
from proxy.errors import BadRequest, ModelNotFound
from proxy.forward import Errand
from proxy.routes import access
from proxy.routes.keys import config_of
from proxy.routes.serving import serve
from proxy.wishes import STRIPPED, wish_of

NEEDS: Mapping[str, str] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/rerank": "rerank",
    "/images/generations": "image_generation",
    "/images/edits": "image_edit",
    "/images/descriptions": "describe",
}
"""What a model must be able to do to be asked at a path; each is served with and without /v1."""


async def dispatch(request: web.Request) -> web.StreamResponse:
    """Serve an OpenAI-shaped POST by the model that its body names."""
    config = config_of(request)
    with await read_body(request, config.max_body_bytes, config.stall_timeout) as body:
        model_id = find_model(config, body.peek.model)
        refuse_what_it_cannot(config, model_id, request.path, body.peek)
        errand = errand_for(request, model_id, target(request), body)
        if body.peek.keep_alive is not None or body.peek.priority is not None:
            errand.body = body.without(STRIPPED)
        return await serve(errand)


def errand_for(request: web.Request, model_id: str, path: str, body: Body) -> Errand:
    """Gather what is known of a request before it waits. Raises BadRequest for odd wishes."""
    config = config_of(request)
    return Errand(
        request,
        model_id,
        path,
        body,
        config,
        wish=wish_of(
            request.headers,
            body.peek,
            access.priority_of_key(request),
            config.models[model_id].priority,
        ),
        withheld=access.withheld(request),
    )


def target(request: web.Request) -> str:
    """Give path and query as they came; of an absolute target (RFC 9112 §3.2.2) that part."""
    raw = request.raw_path
    return raw if raw.startswith("/") else request.rel_url.raw_path_qs


def find_model(config: Config, name: str | None) -> str:
    """Resolve a model's id or alias. Raises BadRequest or ModelNotFound."""
    if not name:
        known = ", ".join(config.models)
        raise BadRequest(
            f"the body must name a model; there are: {known}", param="model", code="missing_model"
        )
    model_id = config.resolve(name)
    if model_id is None:
        raise no_such_model(config, name)
    return model_id


def no_such_model(config: Config, name: str) -> ModelNotFound:
    near = config.near(name[:100]) or list(config.models)
    told = f"no model is named {name[:100]!r}; there is: {', '.join(near)} (GET /v1/models)"
    return ModelNotFound(told, param="model")


def refuse_what_it_cannot(config: Config, model_id: str, path: str, peek: Peek) -> None:
    """Raise BadRequest before a swap is spent on a request that must fail."""
    model, words = config.models[model_id], config.models[model_id].words
    need = NEEDS[path.removeprefix("/v1")]
    if words is None:
        return  # a `cmd` that does not say what it can do
    if need not in words:
        raise _cannot(config, model_id, model, need, "model_cannot")
    if peek.has_pictures and "vision" not in words:
        raise _cannot(config, model_id, model, "vision", "model_cannot_see")


def _cannot(config: Config, model_id: str, model: ModelConfig, need: str, code: str) -> BadRequest:
    able = [name for name, other in config.models.items() if need in (other.words or ())]
    instead = f"ask one of: {', '.join(able)}" if able else "no model here can"
    told = f"{model_id} is for {', '.join(model.words or ())}, not for {need}; {instead}"
    return BadRequest(told, param="model", code=code)
