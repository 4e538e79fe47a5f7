"""What a model cannot do is refused here, before a swap is spent on a request that must fail."""

from __future__ import annotations

from collections.abc import Callable

from proxy.config import Config
from proxy.errors import BadRequest, ModelCannot
from proxy.routes import paths
from proxy.routes.destination import Load


def refuse_what_it_cannot(
    config: Config, model_id: str, path: str, look: Callable[[], Load]
) -> None:
    """Raise BadRequest where a model of ours is asked for what it is not made for."""
    model = config.models[model_id]
    need, words = paths.need_of(path), model.words
    if model.kind != "cmd" and not paths.is_bundled(path):
        told = f"{model_id} runs on the bundled worker {model.kind}, which serves no {path}"
        raise BadRequest(told, param="model", code="model_cannot")
    if words is None or need is None:
        return  # a `cmd` that does not say what it can do, or a path that only its worker knows
    if need not in words:
        raise _cannot(config, model_id, need, "model_cannot", look())


def refuse_pictures(config: Config, model_id: str, path: str, look: Callable[[], Load]) -> None:
    """Raise BadRequest where a model of ours cannot see them, and cannot be told of them."""
    model = config.models[model_id]
    is_told = config.eyes_of(model) is not None and paths.plain(path) in paths.TOLD
    if not is_told and model.words is not None and "vision" not in model.words:
        raise _cannot(config, model_id, "vision", "model_cannot_see", look())


def _cannot(config: Config, model_id: str, need: str, code: str, load: Load) -> ModelCannot:
    words = config.models[model_id].words or ()
    able = [
        name
        for name, other in config.models.items()
        if need in (other.words or ()) and not other.unlisted
    ]
    able.sort(key=lambda name: load.states.get(name) != "ready")
    instead = f"ask one of: {', '.join(able)}" if able else "no model here can"
    told = f"{model_id} is for {', '.join(words)}, not for {need}; {instead}"
    return ModelCannot(told, alternatives=able, code=code)
