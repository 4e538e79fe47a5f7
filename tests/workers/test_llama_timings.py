"""How long the llama worker took for an answer, in llama-server's words."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.workers import launch
from tests.workers.llama_talk import COW, FRANCE, PARIS, ask, chat, sent
from workers.llama.timings import Stopwatch, Work, told

ENGINE = [pytest.mark.engine, pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]
CHUNK = {"id", "object", "created", "model", "choices"}


def engine(test: Any) -> Any:
    for mark in ENGINE:
        test = mark(test)
    return test


def measured(*at: float) -> Stopwatch:
    """Give the watch of a generation that began at the first of these, with a step at the rest."""
    watch = Stopwatch()
    watch.begin(at[0])
    for one in at[1:]:
        watch.step(one)
    return watch


@pytest.mark.parametrize(
    ("at", "prompt_s", "steps", "steps_s"),
    [
        ([5], 0, 0, 0),
        ([5, 7], 2, 0, 0),
        ([5, 7, 8, 11], 2, 2, 4),
    ],
)
def test_the_prompt_lasts_until_the_first_step(
    at: list[float], prompt_s: float, steps: int, steps_s: float
) -> None:
    """And what has not come to an end has taken no time that is known."""
    watch = measured(*at)

    assert (watch.prompt_s, watch.steps, watch.steps_s) == (prompt_s, steps, steps_s)


def test_a_generation_that_begins_again_is_measured_from_there() -> None:
    """One that was put aside before its first token has its prompt computed once more."""
    watch = measured(5)

    watch.begin(6)
    watch.step(8)

    assert watch.prompt_s == 2


def test_the_work_for_several_choices_is_told_together() -> None:
    """Counts and times are added up, and the speeds are those of the sums."""
    one = Work(prompt=30, cached=10, generated=5, prompt_s=0.25, steps=4, steps_s=1.5)
    other = Work(prompt=10, cached=30, generated=2, prompt_s=0.25, steps=2, steps_s=0.5)

    assert told([one, other]) == {
        "cache_n": 40,
        "prompt_n": 40,
        "prompt_ms": 500,
        "prompt_per_token_ms": 12.5,
        "prompt_per_second": 80,
        "predicted_n": 7,
        "predicted_ms": 2000,
        "predicted_per_token_ms": pytest.approx(333.3, rel=0.001),
        "predicted_per_second": 3,
    }


def test_what_was_not_measured_is_not_told() -> None:
    """Neither a time nor a speed stands for work that nobody saw, nor is one divided by 0."""
    work = Work(prompt=30, cached=0, generated=0, prompt_s=0, steps=0, steps_s=0)

    assert told([work]) == {"cache_n": 0, "prompt_n": 30, "predicted_n": 0}


def agree(timings: Any, usage: Any) -> None:
    """See that both tell the same of one choice."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert timings["cache_n"] == cached
    assert timings["prompt_n"] == usage["prompt_tokens"] - cached
    assert timings["predicted_n"] == usage["completion_tokens"]


@engine
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_whole_answer_tells_its_timings(worker: launch.Launched, path: str) -> None:
    """They agree with the usage, with each other, and with the client's own clock."""
    began = time.monotonic()
    body = {"messages": ask(FRANCE), "prompt": FRANCE, "temperature": 0, "max_tokens": 9}
    answer = await sent(worker, path, **body)
    total_ms = 1000 * (time.monotonic() - began)

    timings = answer["timings"]
    agree(timings, answer["usage"])
    for part in ("prompt", "predicted"):
        speed, each_ms = timings[f"{part}_per_second"], timings[f"{part}_per_token_ms"]
        assert speed * each_ms == pytest.approx(1000)
    assert timings["prompt_ms"] == pytest.approx(
        timings["prompt_n"] * timings["prompt_per_token_ms"]
    )
    assert 0 < timings["prompt_ms"] + timings["predicted_ms"] < total_ms


@engine
async def test_openai_reads_an_answer_with_timings(worker: launch.Launched) -> None:
    """They come as one more field, beside all that it knows."""
    answer = await chat(worker)

    assert answer.choices[0].message.content == PARIS
    agree(answer.model_extra["timings"], answer.usage.model_dump())


@engine
async def test_a_found_prompt_is_told_as_found(worker: launch.Launched) -> None:
    """Asked again, only the last token of the prompt is computed."""
    first = await chat(worker, COW)

    again = (await chat(worker, COW)).model_extra["timings"]

    assert (again["cache_n"], again["prompt_n"]) == (first.usage.prompt_tokens - 1, 1)


@engine
async def test_the_speed_is_of_the_steps_after_the_first(worker: launch.Launched) -> None:
    """The end is one, unless it is cut: three tokens took two; a single one has no speed."""
    ended = (await chat(worker)).model_extra["timings"]
    three = (await chat(worker, max_tokens=3)).model_extra["timings"]
    one = (await chat(worker, max_tokens=1)).model_extra["timings"]

    assert ended["predicted_ms"] == pytest.approx(
        ended["predicted_n"] * ended["predicted_per_token_ms"]
    )
    assert three["predicted_ms"] == pytest.approx(2 * three["predicted_per_token_ms"])
    assert one["predicted_n"] == 1
    assert one["prompt_per_second"] > 0
    assert not {"predicted_ms", "predicted_per_token_ms", "predicted_per_second"} & one.keys()


async def streamed(worker: launch.Launched, path: str, **body: Any) -> list[dict[str, Any]]:
    """Ask both endpoints the same way, through openai's client; gives the chunks as they came."""
    client, given = worker.openai(), {"model": "tiny", "temperature": 0, "max_tokens": 9} | body
    if path == "chat":
        stream = await client.chat.completions.create(messages=ask(FRANCE), stream=True, **given)
    else:
        stream = await client.completions.create(prompt=FRANCE, stream=True, **given)
    return [chunk.model_dump(exclude_unset=True) async for chunk in stream]


@engine
@pytest.mark.parametrize("path", ["chat", "completions"])
async def test_a_stream_tells_its_timings_with_the_end(worker: launch.Launched, path: str) -> None:
    """They are in the chunk that has the reason of the end, which is the last one."""
    *before, last = await streamed(worker, path)

    assert [chunk.keys() for chunk in before] == [CHUNK] * len(before)
    assert last.keys() == CHUNK | {"timings"}
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    assert last["timings"]["predicted_per_second"] > 0


@engine
@pytest.mark.parametrize("path", ["chat", "completions"])
async def test_the_chunk_of_the_usage_stays_as_it_is(worker: launch.Launched, path: str) -> None:
    """Who asks for the usage gets it last, in OpenAI's shape, and the timings before it."""
    *_, end, last = await streamed(worker, path, stream_options={"include_usage": True})

    assert last.keys() == CHUNK | {"usage"}
    assert last["choices"] == []
    agree(end["timings"], last["usage"])


@engine
@pytest.mark.parametrize("path", ["chat", "completions"])
async def test_several_choices_tell_their_timings_once(worker: launch.Launched, path: str) -> None:
    """The last end of a stream has them, for all choices together."""
    chunks = await streamed(worker, path, n=2, max_tokens=3)

    ends = [chunk for chunk in chunks if chunk["choices"][0]["finish_reason"]]
    assert [chunk["choices"][0]["index"] for chunk in ends] in ([0, 1], [1, 0])
    assert ["timings" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert ends[-1]["timings"]["predicted_n"] == 6
