"""Serve a GGUF model with llama.cpp: chat, vision, completions, embeddings, reranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from workers import serve
from workers.llama import checks, estimate
from workers.llama.options import LlamaOptions
from workers.memory import Memory

if TYPE_CHECKING:
    from workers.llama.face import Face


class Llama:
    """The worker of `python -m workers.llama`."""

    options_type = LlamaOptions

    def __init__(self) -> None:
        self._face: Face | None = None

    def check(self, options: LlamaOptions) -> Sequence[serve.Problem]:
        return checks.problems(options)

    def estimate(self, options: LlamaOptions) -> Memory:
        return estimate.estimate(options)

    def prepare(self) -> None:
        from workers.llama import face  # noqa: PLC0415  # the engine, which --check must not need

        self._face = face.Face()

    def load(self, options: LlamaOptions, progress: serve.Progress) -> Mapping[str, object]:
        return self._ready_face().load(options, progress)

    def routes(self) -> Sequence[web.RouteDef]:
        return self._ready_face().routes()

    def close(self) -> None:
        if self._face is not None:
            self._face.close()

    def _ready_face(self) -> Face:
        assert self._face is not None, "prepare comes first"  # noqa: S101  # the shell's promise
        return self._face


if __name__ == "__main__":
    serve.run(Llama())
