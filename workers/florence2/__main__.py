"""Describe pictures with Florence-2: captions, tags, boxes and text, by chat or by task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from aiohttp import web

from workers import serve
from workers.florence2 import checks, estimate
from workers.florence2.options import Florence2Options
from workers.memory import Memory

OFFLINE = {
    "HF_HUB_OFFLINE": "1",  # else a wrong name is retried for minutes
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Florence2:
    """The worker of `python -m workers.florence2`."""

    options_type = Florence2Options

    def __init__(self) -> None:
        self._routes: Sequence[web.RouteDef] = ()

    def check(self, options: Florence2Options) -> Sequence[serve.Problem]:
        return checks.problems(options)

    def estimate(self, options: Florence2Options) -> Memory:
        return estimate.estimate(options)

    def prepare(self) -> None:
        """Import the engine, told beforehand that there is no network."""
        os.environ.update(OFFLINE)
        from workers.florence2 import loading  # noqa: F401, PLC0415  # torch: seconds of imports

    def load(self, options: Florence2Options, progress: serve.Progress) -> Mapping[str, object]:
        from workers import descriptions  # noqa: PLC0415  # Pillow, which a check does without
        from workers.florence2 import chat, describer, eyes, loading, turns  # noqa: PLC0415  # as above

        engine = loading.load(options, progress)
        looks, served = eyes.Eyes(engine, options.max_pixels), turns.Turns(engine, options.batch)
        self._routes = [
            *chat.Chat(served, looks).routes(),
            *descriptions.Face(describer.Describer(served, looks, options.batch)).routes(),
        ]
        return engine.facts

    def routes(self) -> Sequence[web.RouteDef]:
        return self._routes

    def close(self) -> None:
        """Leave it to the exit that follows: the engine keeps nothing that must be saved."""


if __name__ == "__main__":
    serve.run(Florence2())
