"""The current checkpoint: the model that AUTOMATIC1111's clients mean when they name none."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from proxy.config import Config
from proxy.routes.destination import no_such_model, place_of

PAINTS = "image_generation"


class Checkpoint:
    """The first model that paints, until another is chosen; that counts until the server ends."""

    def __init__(self) -> None:
        self._chosen: str | None = None

    def name(self, config: Config) -> str | None:
        """Name it; None: no model is known to paint."""
        if self._chosen is not None and _is_there(config, self._chosen):
            return self._chosen
        return next(painters(config), None)

    def choose(self, config: Config, name: str) -> None:
        """Let it be this one from now on. Raises ModelNotFound."""
        if not _is_there(config, name):
            raise no_such_model(config, name)
        self._chosen = name


CHECKPOINT = web.AppKey("checkpoint", Checkpoint)


def painters(config: Config) -> Iterator[str]:
    """Name the models of ours that paint, as far as they say so."""
    listed = ((model_id, m) for model_id, m in config.models.items() if not m.unlisted)
    yield from (model_id for model_id, model in listed if PAINTS in (model.words or ()))


def _is_there(config: Config, name: str) -> bool:
    return name in config.selectors or place_of(config, name) is not None
