"""Embeddings and reranking of the llama worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from tests.workers import launch
from tests.workers.llama_talk import sent

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

TEXTS = ["a cat sat here", "the weather is hot", "a book about music", "x"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder(models: Path) -> AsyncIterator[launch.Launched]:
    options = {"model": str(models / "embed.gguf"), "embedding": True, "n_threads": 1}
    async with launch.launched("llama", options) as ready:
        yield ready


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ranker(models: Path) -> AsyncIterator[launch.Launched]:
    options = {"model": str(models / "rerank.gguf"), "embedding": True, "n_threads": 1}
    async with launch.launched("llama", options) as ready:
        yield ready


async def embedded(worker: launch.Launched, given: Any, **more: Any) -> np.ndarray:
    told = await sent(worker, "/v1/embeddings", input=given, **more)
    return np.array([one["embedding"] for one in told["data"]])


async def test_base64_and_float_are_the_same_unit_vectors(embedder: launch.Launched) -> None:
    """The client's default encoding and plain numbers agree, and every vector has length 1."""
    client = embedder.openai()

    packed = await client.embeddings.create(model="e", input=TEXTS)
    plain = await client.embeddings.create(model="e", input=TEXTS, encoding_format="float")

    left, right = (np.array([d.embedding for d in told.data]) for told in (packed, plain))
    assert np.allclose(left, right, atol=1e-7)
    assert np.allclose(np.linalg.norm(left, axis=1), 1, atol=1e-5)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 4


async def test_vector_does_not_depend_on_its_company(embedder: launch.Launched) -> None:
    """A text embedded in a batch, alone, or beside other requests is the same vector."""
    batch = await embedded(embedder, TEXTS)

    alone = [(await embedded(embedder, text))[0] for text in TEXTS]
    beside = await asyncio.gather(*(embedded(embedder, text) for text in TEXTS * 5))

    assert np.allclose(batch, alone, atol=1e-4)
    assert np.allclose(np.concatenate(beside), np.concatenate([batch] * 5), atol=1e-4)


async def test_token_ids_embed_as_their_text(embedder: launch.Launched) -> None:
    """Token ids, one list or several, are taken as they are."""
    tokens = (await sent(embedder, "/tokenize", content=TEXTS[0], add_special=True))["tokens"]

    vectors = [await embedded(embedder, given) for given in (TEXTS[0], tokens, [tokens])]

    assert np.allclose(vectors[0], vectors[1], atol=1e-5)
    assert np.allclose(vectors[0], vectors[2], atol=1e-5)


async def test_fewer_dimensions_are_scaled_again(embedder: launch.Launched) -> None:
    """`dimensions` cuts the vector and gives it length 1 again."""
    whole = await embedded(embedder, TEXTS[0])

    cut = await embedded(embedder, TEXTS[0], dimensions=8)

    assert np.allclose(cut[0], whole[0][:8] / np.linalg.norm(whole[0][:8]), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": "word " * 5000}, "context_length_exceeded"),
        ({"input": ["fine", "word " * 5000]}, "context_length_exceeded"),
        ({"input": TEXTS, "dimensions": 100_000}, "invalid_value"),
        ({"input": [999_999]}, "invalid_value"),
        ({"input": []}, "invalid_value"),
        ({"input": ""}, "invalid_value"),
        ({"input": 7}, "invalid_value"),
        ({}, "missing_field"),
        ({"input": "x", "encoding_format": "int8"}, "invalid_value"),
    ],
)
async def test_mistakes_are_the_clients(
    embedder: launch.Launched, body: dict[str, Any], code: str
) -> None:
    """Nothing is cut in silence, and nothing strange reaches the engine."""
    told = await sent(embedder, "/v1/embeddings", 400, **body)

    assert told["error"]["code"] == code
    assert len(await embedded(embedder, "still here")) == 1


async def test_longest_text_is_embedded(embedder: launch.Launched) -> None:
    """A text that just fits is embedded whole; with one token more it is refused."""
    n_ctx = embedder.facts["n_ctx"]

    vector = await embedded(embedder, [[5] * n_ctx])
    await sent(embedder, "/v1/embeddings", 400, input=[[5] * (n_ctx + 1)])

    assert np.isfinite(vector).all()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/completions", "/rerank"])
async def test_embedder_only_embeds(embedder: launch.Launched, path: str) -> None:
    """Other endpoints are refused, and say why."""
    told = await sent(embedder, path, 400, messages=[], prompt="x", query="x", documents=["y"])

    assert told["error"]["code"] == "unsupported_endpoint"


async def test_documents_are_ranked(ranker: launch.Launched) -> None:
    """Results come best first, with the place in the request, as many as were asked for."""
    body = {"query": "a cat", "documents": [*TEXTS, {"text": "a cat"}], "return_documents": True}

    everything = await sent(ranker, "/v1/rerank", **body)
    best = await sent(ranker, "/rerank", top_n=2, **body)

    scores = [result["relevance_score"] for result in everything["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(result["index"] for result in everything["results"]) == [0, 1, 2, 3, 4]
    texts = [*TEXTS, "a cat"]
    assert all(r["document"]["text"] == texts[r["index"]] for r in everything["results"])
    assert [r["index"] for r in best["results"]] == [r["index"] for r in everything["results"][:2]]


async def test_score_does_not_depend_on_its_company(ranker: launch.Launched) -> None:
    """A document is scored the same alone and among others."""
    together = await sent(ranker, "/v1/rerank", query="a cat", documents=TEXTS)

    for result in together["results"]:
        one = await sent(ranker, "/v1/rerank", query="a cat", documents=[TEXTS[result["index"]]])
        assert one["results"][0]["relevance_score"] == pytest.approx(
            result["relevance_score"], abs=1e-4
        )


async def test_ranker_does_not_embed(ranker: launch.Launched) -> None:
    """A reranker's vectors would be nonsense, so there are none."""
    told = await sent(ranker, "/v1/embeddings", 400, input="x")

    assert told["error"]["code"] == "unsupported_endpoint"
