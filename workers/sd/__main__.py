"""Serve an image model with stable-diffusion.cpp: pictures from text, and edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from workers import serve
from workers.memory import Memory
from workers.sd import checks, estimate
from workers.sd.options import SdOptions

if TYPE_CHECKING:
    from workers.sd.face import Face


class StableDiffusion:
    """The worker of `python -m workers.sd`."""

    options_type = SdOptions

    def __init__(self) -> None:
        self._face: Face | None = None

    def check(self, options: SdOptions) -> Sequence[serve.Problem]:
        return checks.problems(options)

    def estimate(self, options: SdOptions) -> Memory:
        return estimate.estimate(options)

    def prepare(self) -> None:
        from workers.sd import face  # noqa: PLC0415  # the engine, which --check must not need

        self._face = face.Face()

    def load(self, options: SdOptions, progress: serve.Progress) -> Mapping[str, object]:
        return self._ready_face().load(options, progress)

    def routes(self) -> Sequence[web.RouteDef]:
        return self._ready_face().routes()

    def close(self) -> None:
        """Do nothing: the process exits by os._exit, which the engine's thread survives best."""

    def _ready_face(self) -> Face:
        assert self._face is not None, "prepare comes first"  # noqa: S101  # the shell's promise
        return self._face


if __name__ == "__main__":
    serve.run(StableDiffusion())
