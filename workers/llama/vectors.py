"""POST /v1/embeddings and /v1/rerank."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence

import numpy as np
from aiohttp import web
from llama_cpp import llama_cpp

from workers import wire
from workers.llama import answers
from workers.llama.bodies import MAX_INPUTS, EmbeddingsBody, RerankBody, TextDocument
from workers.llama.embedder import Embedder, Failure, Reading, Vector
from workers.llama.loading import Loaded


class Vectors:
    """The endpoints of an embedding or reranking model."""

    def __init__(self, loaded: Loaded, embedder: Embedder) -> None:
        self._loaded = loaded
        self._vocabulary = loaded.vocabulary
        self._embedder = embedder
        template = llama_cpp.llama_model_chat_template(loaded.model, b"rerank")
        self._rank_template = template.decode(errors="replace") if template else None

    async def embed(self, request: web.Request) -> web.Response:
        body = await wire.read_body(request, EmbeddingsBody)
        if self._embedder.ranks or not self._embedder.pools:
            raise wire.bad_request(
                "this model was loaded with a pooling_type that gives no embeddings; use"
                " /v1/rerank for rank, or load it with mean, cls or last",
                code="unsupported_endpoint",
            )
        self._check_dimensions(body.dimensions)
        texts = await asyncio.to_thread(self._input_tokens, body)
        vectors = await self._read(texts)
        data = [
            {
                "object": "embedding",
                "index": number,
                "embedding": _encoded(_unit(vector, body.dimensions), body.encoding_format),
            }
            for number, vector in enumerate(vectors)
        ]
        return web.json_response(
            {
                "object": "list",
                "data": data,
                "model": body.model or self._loaded.name,
                "usage": _usage(texts),
            }
        )

    async def rerank(self, request: web.Request) -> web.Response:
        body = await wire.read_body(request, RerankBody)
        if not self._embedder.ranks:
            raise wire.bad_request(
                "this model embeds and does not rank; load a reranker, or set pooling_type: rank",
                code="unsupported_endpoint",
            )
        documents = [d.text if isinstance(d, TextDocument) else d for d in body.documents]
        texts = await asyncio.to_thread(
            lambda: [self._pair(body.query, document) for document in documents]
        )
        scores = [float(vector[0]) for vector in await self._read(texts)]
        order = sorted(range(len(scores)), key=lambda number: -scores[number])[: body.top_n]
        results = [
            {"index": number, "relevance_score": scores[number]}
            | ({"document": {"text": documents[number]}} if body.return_documents else {})
            for number in order
        ]
        name = body.model or self._loaded.name
        return web.json_response({"model": name, "results": results, "usage": _usage(texts)})

    def _check_dimensions(self, dimensions: int | None) -> None:
        if dimensions is not None and dimensions > self._embedder.width:
            raise wire.bad_request(
                f"dimensions: this model has {self._embedder.width}, {dimensions} were asked for",
                param="dimensions",
            )

    def _input_tokens(self, body: EmbeddingsBody) -> list[list[int]]:
        """Tokenise what is text. Raises ApiError 400; nothing is cut to fit."""
        inputs = body.inputs
        if not inputs or len(inputs) > MAX_INPUTS or not all(inputs):
            raise wire.bad_request(
                f"input: from 1 to {MAX_INPUTS} texts, none of them empty", param="input"
            )
        return [self._tokens(text, "input") for text in inputs]

    def _tokens(self, text: str | list[int], param: str) -> list[int]:
        if isinstance(text, str):
            answers.refuse_unreadable(text, self._loaded.n_ctx, param)
            text = self._vocabulary.tokens(text, add_special=True, parse_special=False)
        answers.refuse_unknown(text, self._vocabulary, param)
        answers.refuse_too_long(len(text) - 1, self._loaded.n_ctx, param)  # no answer to come
        return text or [self._vocabulary.warm_up_token()]

    def _pair(self, query: str, document: str) -> list[int]:
        """Put a query and a document together, as the model was trained to read them."""
        words = self._vocabulary
        if self._rank_template is not None:
            # in one go, so that a query that says {document} stays a query
            before, _, after = self._rank_template.partition("{document}")
            filled = f"{before.replace('{query}', query)}{document}{after}"
            return self._tokens(
                words.tokens(filled, add_special=True, parse_special=True), "documents"
            )
        bos = [words.bos] if words.adds_bos else []
        eos = [words.eos] if words.adds_eos else []
        sep = [words.sep] if words.adds_sep else []
        first = words.tokens(query, add_special=False, parse_special=False)
        second = words.tokens(document, add_special=False, parse_special=False)
        return self._tokens([*bos, *first, *eos, *sep, *second, *eos], "documents")

    async def _read(self, texts: Sequence[Sequence[int]]) -> list[Vector]:
        """Have texts read. Raises ApiError 500, OutOfMemory.

        Leaving stops what is not being read yet.
        """
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Vector | Failure]] = [loop.create_future() for _ in texts]

        def telling(
            future: asyncio.Future[Vector | Failure],
        ) -> Callable[[Vector | Failure], object]:
            return lambda vector: loop.call_soon_threadsafe(_settle, future, vector)

        readings = [
            Reading(tokens, telling(future)) for tokens, future in zip(texts, futures, strict=True)
        ]
        try:
            for reading in readings:
                self._embedder.submit(reading)
            vectors = await asyncio.gather(*futures)
        finally:
            for reading in readings:
                self._embedder.cancel(reading)
        read = [vector for vector in vectors if not isinstance(vector, str)]
        if len(read) < len(texts):
            raise answers.failure("out_of_memory" in [v for v in vectors if isinstance(v, str)])
        return read


def _settle(future: asyncio.Future[Vector | Failure], vector: Vector | Failure) -> None:
    if not future.done():  # cancelled, when the client has left
        future.set_result(vector)


def _unit(vector: Vector, dimensions: int | None) -> Vector:
    """Cut to the first dimensions (Matryoshka) and scale to length 1."""
    cut = np.nan_to_num(vector[:dimensions])
    length = float(np.linalg.norm(cut))
    return cut / np.float32(length) if length else cut


def _encoded(vector: Vector, form: str | None) -> list[float] | str:
    """Write a vector as numbers, or as OpenAI's base64 of little-endian float32."""
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]


def _usage(texts: Sequence[Sequence[int]]) -> dict[str, int]:
    count = sum(len(tokens) for tokens in texts)
    return {"prompt_tokens": count, "total_tokens": count}
