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


def past_calls(calls: Any) -> Any:
    return [{"role": "assistant", "content": "Hm.", "tool_calls": calls}, *ask("Hi")]


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


@pytest.mark.parametrize("echo", [False, True])
async def test_streamed_text_offsets_go_on(worker: launch.Launched, *, echo: bool) -> None:
    """Streamed or not, each token is where it is in the text, after the prompt if that is told."""
    body = {"prompt": ["The capital", "What"], "temperature": 0, "max_tokens": 6, "logprobs": 0}
    whole = await sent(worker, "/v1/completions", echo=echo, **body)
    stream = await worker.openai().completions.create(model="tiny", stream=True, echo=echo, **body)

    offsets: list[list[int]] = [[], []]
    async for chunk in stream:
        offsets[chunk.choices[0].index] += chunk.choices[0].logprobs.text_offset

    assert offsets == [choice["logprobs"]["text_offset"] for choice in whole["choices"]]
    assert [told[0] for told in offsets] == ([11, 4] if echo else [0, 0])
    assert all(len(told) == len(set(told)) > 1 for told in offsets)


async def test_cached_tokens_are_those_of_all_prompts(worker: launch.Launched) -> None:
    """What was found in the cache is counted over the prompts, as the prompts are."""
    body = {"prompt": ["The capital of France", "What does the cow say"], "max_tokens": 1}
    await sent(worker, "/v1/completions", **body)

    usage = (await sent(worker, "/v1/completions", n=2, **body))["usage"]

    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached == usage["prompt_tokens"] - 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_grammar_needs_the_option(worker: launch.Launched, path: str) -> None:
    """A client may send no grammar unless the options say so, and is told of both cures."""
    error = await refused(
        worker, path, messages=ask("Hi"), prompt="Hi", grammar='root ::= "yes" | "no"'
    )

    assert (error["code"], error["param"]) == ("grammar_not_allowed", "grammar")
    assert "allow_grammar" in error["message"]
    assert "json_schema" in error["message"]


@pytest.mark.parametrize("calls", [None, []])
async def test_turn_may_have_no_calls(worker: launch.Launched, calls: Any) -> None:
    """An assistant's turn that says it has no calls is as good as one that says nothing."""
    told = await sent(
        worker, "/v1/chat/completions", messages=past_calls(calls), max_tokens=1, temperature=0
    )

    assert told["usage"]["completion_tokens"] == 1


async def test_arguments_too_deep_to_read_do_no_harm(worker: launch.Launched) -> None:
    """A past call whose arguments nest without end is answered all the same."""
    function = {"name": "a", "arguments": "[" * 100_000}
    call = {"id": "1", "type": "function", "function": function}

    told = await sent(worker, "/v1/chat/completions", messages=past_calls([call]), max_tokens=1)

    assert told["usage"]["completion_tokens"] == 1


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
        ({"messages": ask("Hi"), "grammar": 'root ::= "a"'}, "grammar_not_allowed"),
        ({"messages": past_calls(5)}, "invalid_value"),
        ({"messages": past_calls(True)}, "invalid_value"),  # noqa: FBT003  # JSON
        ({"messages": past_calls([5])}, "invalid_value"),
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
    """The message has OpenAI's words, by which agents know to shorten, and both numbers."""
    words = rf"This model's maximum context length is {N_CTX} tokens, but the prompt has \d+;"
    with pytest.raises(openai.BadRequestError, match=words) as failed:
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
