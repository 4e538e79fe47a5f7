"""Which models there are: answered from the config and the pool's state, never behind a swap."""

from __future__ import annotations

from aiohttp import web

from proxy.config import Config, ModelConfig
from proxy.routes.inference import find_model
from proxy.routes.keys import POOL, config_of

UNDECLARED = ("chat", "completions")
"""What a `cmd` is listed as when it does not say; words must be there, on every model."""


async def list_models(request: web.Request) -> web.Response:
    """Answer GET /v1/models."""
    config, loaded = config_of(request), _loaded(request)
    entries = [
        describe(config, model_id, model, is_loaded=model_id in loaded)
        for model_id, model in sorted(config.models.items())
        if not model.unlisted
    ]
    return web.json_response({"object": "list", "data": entries})


async def tell_model(request: web.Request) -> web.Response:
    """Answer GET /v1/models/{id}, by alias too."""
    config = config_of(request)
    model_id = find_model(config, request.match_info["id"])
    model = config.models[model_id]
    return web.json_response(
        describe(config, model_id, model, is_loaded=model_id in _loaded(request))
    )


def _loaded(request: web.Request) -> set[str]:
    return {
        worker.model for worker in request.app[POOL].standing.running() if worker.state == "ready"
    }


def describe(
    config: Config, model_id: str, model: ModelConfig, *, is_loaded: bool
) -> dict[str, object]:
    """Make a model object. `capabilities` is a list of words: some clients read a map's keys."""
    words = model.words or UNDECLARED
    inputs = ["text", *(["image"] if {"vision", "describe", "image_edit"} & {*words} else [])]
    outputs = ["image"] if "image_generation" in words else ["text"]
    return {
        "id": model_id,
        "object": "model",
        "created": config.created,
        "owned_by": "hotseat",
        **({"name": model.name} if model.name else {}),
        **({"description": model.description} if model.description else {}),
        "capabilities": list(words),
        "architecture": {
            "input_modalities": inputs,
            "output_modalities": outputs,
            "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
        },
        "status": {"value": "loaded" if is_loaded else "unloaded"},
        "meta": {"llamaswap": {"type": "model", "aliases": list(model.aliases)}},
    }
