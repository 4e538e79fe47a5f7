"""What the worker program is made of once the engine may be imported: load, then endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from aiohttp import web
from llama_cpp import llama_cpp

from workers import descriptions, serve, wire
from workers.llama import answers
from workers.llama.bodies import DetokenizeBody, TokenizeBody
from workers.llama.chat import Chat
from workers.llama.completions import Completions
from workers.llama.describing import Describer
from workers.llama.embedder import Embedder
from workers.llama.enginelog import EngineLog
from workers.llama.eyes import Eyes
from workers.llama.formats import CHATML, FORMATS, VICUNA
from workers.llama.generator import Generator
from workers.llama.loading import Loaded, Loader
from workers.llama.options import LlamaOptions
from workers.llama.template import ChatTemplate, TemplateFailed
from workers.llama.vectors import Vectors

PROJECTORS = {"mlp": "llava", "mlp_norm": "llava", "resampler": "minicpmv"}
"""Projector types by the names that people know them by; others go by their own."""

_NO_OFFLOAD = (
    "n_gpu_layers: {} has no effect, for llama-cpp-python was built without GPU support; build"
    " it with CMAKE_ARGS=-DGGML_CUDA=on"
)


class Face:
    """One model: loaded, then served by one of the two engines."""

    def __init__(self) -> None:
        self._log = EngineLog()
        self._loader: Loader | None = None
        self._engine: Generator | Embedder | None = None
        self._served: Speaking | Reading | None = None

    def load(self, options: LlamaOptions, progress: serve.Progress) -> Mapping[str, object]:
        self._log.install()
        self._loader = Loader(options, progress, self._log)
        loaded = self._loader.load(self._interrupted)
        served = Reading(loaded) if options.embedding else Speaking(loaded)
        self._served, self._engine = served, served.engine
        served.engine.start()
        self._log.loaded()
        return _facts(loaded) | {"endpoints": served.endpoints}

    def routes(self) -> Sequence[web.RouteDef]:
        assert self._served is not None, "load comes first"  # noqa: S101  # the shell's promise
        return self._served.routes()

    def close(self) -> None:
        if self._loader is not None:
            self._loader.stop()
        if self._engine is not None:
            self._engine.close()

    def _interrupted(self) -> bool:
        return self._engine is not None and self._engine.interrupted()


class Speaking:
    """A model that goes on with texts."""

    def __init__(self, loaded: Loaded) -> None:
        """Prepare the model. Raises LoadFailed for a chat template that is broken."""
        self._loaded = loaded
        self._template = _template(loaded)
        self._eyes = _eyes(loaded)
        self.endpoints = ("chat", "completions", *(["descriptions"] if self._eyes else []))
        self.engine = Generator(loaded)

    def routes(self) -> list[web.RouteDef]:
        chat = Chat(self._loaded, self.engine, self._template, self._eyes)
        completions = Completions(self._loaded, self.engine)
        return [
            *wire.with_and_without_v1("/chat/completions", chat.complete),
            *wire.with_and_without_v1("/completions", completions.complete),
            *self._descriptions(),
            *wire.with_and_without_v1("/embeddings", _refuse_to_read),
            *wire.with_and_without_v1("/rerank", _refuse_to_read),
            *_common_routes(self._loaded, self._props),
        ]

    def _descriptions(self) -> list[web.RouteDef]:
        if self._eyes is None:
            return wire.with_and_without_v1("/images/descriptions", _refuse_to_look)
        describer = Describer(self._loaded, self.engine, self._template, self._eyes)
        return descriptions.Face(describer).routes()

    async def _props(self, _request: web.Request) -> web.Response:
        state = {"busy": self.engine.busy, "waiting": self.engine.waiting}
        seen = self._eyes.counts if self._eyes else {}
        return web.json_response(
            {
                **_props(self._loaded),
                "chat_template": self._template.source,
                "counts": self.engine.counts | state | seen,
            }
        )


class Reading:
    """A model that makes vectors or scores of texts."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.engine = Embedder(loaded)
        self.endpoints = ("rerank",) if self.engine.ranks else ("embeddings",)

    def routes(self) -> list[web.RouteDef]:
        vectors = Vectors(self._loaded, self.engine)
        return [
            *wire.with_and_without_v1("/embeddings", vectors.embed),
            *wire.with_and_without_v1("/rerank", vectors.rerank),
            *wire.with_and_without_v1("/chat/completions", _refuse_to_speak),
            *wire.with_and_without_v1("/completions", _refuse_to_speak),
            *_common_routes(self._loaded, self._props),
        ]

    async def _props(self, _request: web.Request) -> web.Response:
        return web.json_response({**_props(self._loaded), "counts": self.engine.counts})


async def _refuse_to_read(_request: web.Request) -> NoReturn:
    raise wire.bad_request(
        "this model is loaded for chat; embeddings and reranking need an entry with"
        " `embedding: true`",
        code="unsupported_endpoint",
    )


async def _refuse_to_look(_request: web.Request) -> NoReturn:
    raise wire.bad_request(
        "this model reads no pictures; use another one, or give it an mmproj",
        code="images_not_supported",
    )


async def _refuse_to_speak(_request: web.Request) -> NoReturn:
    raise wire.bad_request(
        "this model is loaded with `embedding: true`, for embeddings or reranking only; use a"
        " chat model",
        code="unsupported_endpoint",
    )


def _common_routes(loaded: Loaded, props: wire.Handler) -> list[web.RouteDef]:
    vocabulary = loaded.vocabulary

    async def tokenize(request: web.Request) -> web.Response:
        body = await wire.read_body(request, TokenizeBody)
        tokens = await asyncio.to_thread(
            vocabulary.tokens,
            body.content,
            add_special=body.add_special,
            parse_special=body.parse_special,
        )
        return web.json_response({"tokens": tokens})

    async def detokenize(request: web.Request) -> web.Response:
        body = await wire.read_body(request, DetokenizeBody)
        answers.refuse_unknown(body.tokens, vocabulary, "tokens")
        return web.json_response(
            {"content": await asyncio.to_thread(vocabulary.text, body.tokens)}
        )

    return [
        web.post("/tokenize", tokenize),
        web.post("/detokenize", detokenize),
        web.get("/props", props),
    ]


def _facts(loaded: Loaded) -> dict[str, object]:
    options, offload = loaded.options, bool(llama_cpp.llama_supports_gpu_offload())
    facts: dict[str, object] = {
        "architecture": loaded.header.architecture,
        "parameters": llama_cpp.llama_model_n_params(loaded.model),
        "n_ctx": loaded.n_ctx,
        "n_ctx_train": loaded.header.number("context_length"),
        "n_parallel": loaded.n_sequences,
        "gpu_offload": offload,
        "modalities": _modalities(loaded),
    }
    if loaded.vision is not None:
        kind = str(loaded.vision.header.keys.get("clip.projector_type"))
        facts["vision"] = PROJECTORS.get(kind, kind)
    if options.n_gpu_layers > 0 and not offload:
        facts["warnings"] = [_NO_OFFLOAD.format(options.n_gpu_layers)]
    return facts


def _props(loaded: Loaded) -> dict[str, object]:
    return {
        "model": loaded.name,
        "n_ctx": loaded.n_ctx,
        "n_parallel": loaded.n_sequences,
        "modalities": _modalities(loaded),
    }


def _modalities(loaded: Loaded) -> list[str]:
    return ["text", "image"] if loaded.vision else ["text"]


def _eyes(loaded: Loaded) -> Eyes | None:
    if loaded.vision is None:
        return None
    return Eyes(loaded.vision, loaded.vocabulary, loaded.options, loaded.n_ctx)


def _template(loaded: Loaded) -> ChatTemplate:
    """Choose the chat template: the option's, the file's, else the one such models use."""
    file, given = loaded.options.chat_template_file, loaded.options.chat_template
    if file is not None:
        given = Path(file).read_bytes().decode(errors="replace")
    own = llama_cpp.llama_model_chat_template(loaded.model, None)
    source = FORMATS.get(given or "", given) or (own.decode(errors="replace") if own else None)
    words = loaded.vocabulary
    try:
        return ChatTemplate(
            source or (VICUNA if loaded.vision else CHATML), bos=words.bos_text, eos=words.eos_text
        )
    except TemplateFailed as error:
        raise serve.LoadFailed("bad_options", f"{error}; set chat_template") from None
