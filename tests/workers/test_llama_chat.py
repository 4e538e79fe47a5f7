"""Chat with the llama worker, as its clients see it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.workers import launch
from tests.workers.llama_talk import COW, FRANCE, MOO, N_CTX, PARIS, ask, chat, sent

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_facts_tell_the_model(worker: launch.Launched) -> None:
    """Ready comes with what was loaded, and progress before it."""
    assert worker.facts["architecture"] == "llama"
    assert worker.facts["n_ctx"] == N_CTX
    assert worker.facts["endpoints"] == ["chat", "completions"]
    assert {"state": "loading", "progress": 1.0} in worker.statuses


async def test_answer_is_the_models(worker: launch.Launched) -> None:
    """A chat is answered with the words, the reason of the end and the usage."""
    answer = await chat(worker)

    assert answer.choices[0].message.content == PARIS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_stream_says_the_same(worker: launch.Launched) -> None:
    """A stream has the role first, then the words, one end, and the usage where asked for."""
    stream = await chat(worker, stream=True, stream_options={"include_usage": True})

    chunks = [chunk async for chunk in stream]

    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert said[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in said) == PARIS
    assert [c.finish_reason for c in said if c.finish_reason] == ["stop"]
    assert chunks[-1].usage.completion_tokens > 3
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_answers_together_are_the_answers_alone(worker: launch.Launched) -> None:
    """Requests that are decoded in one batch do not touch each other, also beyond n_parallel."""
    questions = [FRANCE, COW, "What is one plus two?", "Where is Rome?", "Hello", "Who are you?"]
    alone = [(await chat(worker, text)).choices[0].message.content for text in questions]

    together = await asyncio.gather(*(chat(worker, text) for text in questions * 2))

    assert [answer.choices[0].message.content for answer in together] == alone * 2
    assert PARIS in alone


async def test_crowded_cache_gives_the_same_answers(models: Path) -> None:
    """When the shared cells run out, answers are put aside and still come out whole."""
    options = {"model": str(models / "endless.gguf"), "n_ctx": 256, "n_threads": 1}
    async with launch.launched("llama", options) as crowded:
        body = {"temperature": 0, "max_tokens": 150}
        alone = await sent(crowded, "/v1/completions", prompt="a b c d e", **body)

        many = await asyncio.gather(
            *(sent(crowded, "/v1/completions", prompt="a b c d e", **body) for _ in range(6))
        )

        async with crowded.session.get("/props") as props:
            counts = (await props.json())["counts"]
    assert {told["usage"]["completion_tokens"] for told in many} == {150}
    assert {told["choices"][0]["text"] for told in many} == {alone["choices"][0]["text"]}
    assert counts["put_aside"] > 0


async def test_answer_ends_with_the_context(models: Path) -> None:
    """Without a limit an answer goes on to the end of the context, and says so."""
    options = {"model": str(models / "endless.gguf"), "n_ctx": 256, "n_threads": 1}
    async with launch.launched("llama", options) as endless:
        told = await sent(endless, "/v1/completions", prompt="a", max_tokens=-1)

    assert told["choices"][0]["finish_reason"] == "length"
    assert told["usage"]["total_tokens"] == 257  # the last token needs no cell


async def test_prefix_is_reused(worker: launch.Launched) -> None:
    """The same question again is found in the cache, and answered the same."""
    first = await chat(worker, COW)

    second = await chat(worker, COW)

    assert second.choices[0].message.content == first.choices[0].message.content == MOO
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached == second.usage.prompt_tokens - 1


async def test_conversations_do_not_push_each_other_out(worker: launch.Launched) -> None:
    """As many conversations as there are sequences stay in the cache, side by side."""
    questions = [FRANCE, COW, "What is one plus two?", "Where is Rome?"]
    for question in questions:
        await chat(worker, question)

    again = [(await chat(worker, question)).usage for question in questions]

    cached = [usage.prompt_tokens_details.cached_tokens for usage in again]
    assert cached == [usage.prompt_tokens - 1 for usage in again]


@pytest.mark.parametrize("stop", ["France", ["moo", " of Fra"]])
async def test_stop_ends_the_answer_before_it(worker: launch.Launched, stop: Any) -> None:
    """A stop string ends the answer and is no part of it, streamed or not."""
    whole = await chat(worker, stop=stop)
    stream = await chat(worker, stop=stop, stream=True)

    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]

    cut = PARIS[: PARIS.find("France" if stop == "France" else " of Fra")]
    assert whole.choices[0].message.content == cut
    assert whole.choices[0].finish_reason == "stop"
    assert "".join(pieces) == cut


async def test_seed_repeats_and_no_seed_does_not(worker: launch.Launched) -> None:
    """The same seed gives the same answer; without one, answers differ."""
    hot = {"temperature": 5.0, "top_p": 1, "max_tokens": 24, "extra_body": {"min_p": 0}}

    seeded = [(await chat(worker, seed=7, **hot)).choices[0].message.content for _ in range(2)]
    free = [(await chat(worker, **hot)).choices[0].message.content for _ in range(4)]

    assert seeded[0] == seeded[1]
    assert len(set(free)) > 1


async def test_several_choices(worker: launch.Launched) -> None:
    """`n` gives that many answers, each with its number, streamed or not."""
    whole = await chat(worker, n=3)
    stream = await chat(worker, n=3, stream=True)

    said = ["", "", ""]
    async for chunk in stream:
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert [choice.message.content for choice in whole.choices] == [PARIS] * 3
    assert said == [PARIS] * 3


async def test_logprobs_are_those_of_the_tokens(worker: launch.Launched) -> None:
    """Each token comes with its log probability and the likeliest others, best first."""
    answer = await chat(worker, logprobs=True, top_logprobs=3)

    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens).strip() == PARIS
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)
        assert token.logprob <= 0


async def test_streamed_logprobs_are_complete(worker: launch.Launched) -> None:
    """A stream tells as many log probabilities as there are tokens."""
    stream = await chat(worker, logprobs=True, stream=True, stream_options={"include_usage": True})

    chunks = [chunk async for chunk in stream]

    told = sum(
        len(c.choices[0].logprobs.content) for c in chunks if c.choices and c.choices[0].logprobs
    )
    assert told == chunks[-1].usage.completion_tokens


async def test_logit_bias_bans_a_token(worker: launch.Launched) -> None:
    """A token with a bias of -100 does not come."""
    first = (await chat(worker, logprobs=True, top_logprobs=1)).choices[0].logprobs.content[0]
    name = first.token
    tokens = (await sent(worker, "/tokenize", content=name.strip()))["tokens"]

    biased = await chat(worker, logit_bias={str(token): -100 for token in tokens})

    assert not biased.choices[0].message.content.startswith(name.strip())


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_length_ends_the_answer(worker: launch.Launched, name: str) -> None:
    """Both names of the limit hold, and the reason says so."""
    answer = await worker.openai().chat.completions.create(
        model="tiny", messages=ask(FRANCE), temperature=0, **{name: 2}
    )

    assert answer.usage.completion_tokens == 2
    assert answer.choices[0].finish_reason == "length"


async def test_nulls_are_defaults(worker: launch.Launched) -> None:
    """A client that sends null for what it does not set gets the default."""
    unset = ("n", "stop", "seed", "top_p", "tools", "tool_choice", "logit_bias", "stream_options")
    nulls = dict.fromkeys((*unset, "stream", "logprobs", "response_format", "max_tokens"))

    told = await sent(worker, "/chat/completions", messages=ask(FRANCE), temperature=0, **nulls)

    assert told["choices"][0]["message"]["content"] == PARIS


async def test_content_may_be_parts_or_null(worker: launch.Launched) -> None:
    """Text in parts reads as text, and an earlier turn may have no content."""
    messages = [{"role": "user", "content": [{"type": "text", "text": FRANCE}]}]
    empty = [{"role": "assistant", "content": None}, *messages]

    told = await sent(worker, "/v1/chat/completions", messages=messages, temperature=0)
    also = await sent(worker, "/v1/chat/completions", messages=empty, max_tokens=1)

    assert told["choices"][0]["message"]["content"] == PARIS
    assert also["usage"]["completion_tokens"] == 1
