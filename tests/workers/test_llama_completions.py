"""Completions, tokens and refusals of the llama worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.workers import launch
from tests.workers.llama_talk import (
    COW,
    FRANCE,
    MOO,
    N_CTX,
    OPTIONS,
    PARIS,
    ask,
    chat,
    refused,
    sent,
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_completions_of_every_kind_of_prompt(worker: launch.Launched) -> None:
    """A string, token ids and lists of them give one choice for each prompt, in order."""
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    france, cow = turn.format(FRANCE), turn.format(COW)
    tokens = (await sent(worker, "/tokenize", content=france))["tokens"]
    body = {"temperature": 0, "max_tokens": 40}

    answers = [
        await sent(worker, "/v1/completions", prompt=prompt, **body)
        for prompt in (france, tokens, [france, cow], [tokens])
    ]

    texts = [[c["text"].strip() for c in answer["choices"]] for answer in answers]
    assert texts == [[PARIS], [PARIS], [PARIS, MOO], [PARIS]]


async def test_completion_stream_echo_and_logprobs(worker: launch.Launched) -> None:
    """A streamed completion says the same as a whole one; echo puts the prompt before it."""
    body = {"prompt": "The capital", "temperature": 0, "max_tokens": 6}
    client = worker.openai()
    stream = await client.completions.create(model="tiny", stream=True, echo=True, **body)

    streamed = "".join([chunk.choices[0].text async for chunk in stream])
    whole = await sent(worker, "/completions", logprobs=2, **body)

    choice = whole["choices"][0]
    assert streamed == "The capital" + choice["text"]
    assert len(choice["logprobs"]["tokens"]) == whole["usage"]["completion_tokens"]
    assert choice["logprobs"]["text_offset"][0] == 0


@pytest.mark.parametrize("prompt", [[999_999], [-1], [[1], [999_999]], [], ["a"] * 99])
async def test_impossible_prompts_are_refused(worker: launch.Launched, prompt: Any) -> None:
    """Token ids that the model does not have never reach the engine."""
    await refused(worker, "/v1/completions", prompt=prompt)


async def test_empty_prompt_is_answered(worker: launch.Launched) -> None:
    """Nothing to go on from is something to go on from."""
    told = await sent(worker, "/v1/completions", prompt="", max_tokens=2)

    assert told["usage"]["completion_tokens"] <= 2


@pytest.mark.parametrize("text", ["Hello, world", "grün 猫 🎈", "<|im_start|>user"])
async def test_tokens_there_and_back(worker: launch.Launched, text: str) -> None:
    """What is tokenised detokenises to itself."""
    tokens = (await sent(worker, "/tokenize", content=text))["tokens"]

    assert (await sent(worker, "/detokenize", tokens=tokens))["content"].strip() == text


async def test_props_tell_the_model(worker: launch.Launched) -> None:
    """/props has what a client needs to know of the model."""
    async with worker.session.get("/props") as answer:
        told = await answer.json()

    assert (told["n_ctx"], told["n_parallel"], told["modalities"]) == (N_CTX, 4, ["text"])
    assert "im_start" in told["chat_template"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/rerank", "/rerank"])
async def test_chat_model_does_not_embed(worker: launch.Launched, path: str) -> None:
    """An endpoint that this kind of model cannot serve is refused with the cure."""
    error = await refused(worker, path, input="x", query="x", documents=["y"])

    assert error["code"] == "unsupported_endpoint"
    assert "embedding: true" in error["message"]


async def test_picture_to_a_text_model_is_refused(worker: launch.Launched) -> None:
    """A picture is never dropped in silence."""
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]

    error = await refused(
        worker, "/v1/chat/completions", messages=[{"role": "user", "content": parts}]
    )

    assert "mmproj" in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"messages": []}, "invalid_value"),
        ({}, "missing_field"),
        ({"messages": ask("Hi"), "n": 99}, "invalid_value"),
        ({"messages": ask("Hi"), "temperature": -1}, "invalid_value"),
        ({"messages": ask("Hi"), "temperature": "warm"}, "invalid_value"),
        ({"messages": ask("a" * 2000)}, "context_length_exceeded"),
        ({"messages": ask("a" * 900_000)}, "context_length_exceeded"),
        ({"messages": ask("Hi"), "grammar": "root ::= ["}, "invalid_grammar"),
        ({"messages": ask("Hi"), "grammar": 'tree ::= "a"'}, "invalid_grammar"),
        ({"messages": ask("Hi"), "grammar": "root ::= root"}, "invalid_grammar"),
        ({"messages": ask("Hi"), "grammar": "root ::= " + "(" * 9999}, "unsupported_schema"),
        ({"messages": ask("Hi"), "logit_bias": {"999999": 1}}, "invalid_value"),
        ({"messages": ask("Hi"), "tool_choice": "required"}, "invalid_value"),
        (
            {
                "messages": ask("Hi"),
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "integer", "minimum": 1}},
                },
            },
            "unsupported_schema",
        ),
        (
            {"messages": ask("Hi"), "response_format": {"type": "json_schema"}},
            "invalid_value",
        ),
    ],
)
async def test_mistakes_are_the_clients(
    worker: launch.Launched, body: dict[str, Any], code: str
) -> None:
    """What the client can mend is a 400 with a code, and the worker serves on."""
    error = await refused(worker, "/v1/chat/completions", **body)

    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert (await chat(worker)).choices[0].message.content == PARIS


async def test_too_long_says_both_numbers(worker: launch.Launched) -> None:
    """The message tells how long the prompt is and how long it may be."""
    with pytest.raises(openai.BadRequestError, match=str(N_CTX)) as failed:
        await chat(worker, "a" * 2000)

    assert failed.value.code == "context_length_exceeded"


async def test_bad_json_is_told(worker: launch.Launched) -> None:
    """A body that is no JSON is the client's mistake too."""
    async with worker.session.post("/v1/chat/completions", data=b"{") as answer:
        told = await answer.json()

    assert (answer.status, told["error"]["code"]) == (400, "invalid_json")


async def test_layers_without_a_gpu_are_not_silent(models: Path) -> None:
    """Asking for layers on a GPU that the build cannot use is told as a warning."""
    options = OPTIONS | {"model": str(models / "chat.gguf"), "n_gpu_layers": 5}
    async with launch.launched("llama", options) as ready:
        facts = ready.facts

    assert bool(facts.get("warnings")) != facts["gpu_offload"]
