"""From the inference thread to the event loop, and a client's leaving back to the thread."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from workers import wire
from workers.llama import options as llama_options
from workers.llama.album import Item, cells, picture_cells
from workers.llama.bodies import SamplingBody
from workers.llama.generator import Generator
from workers.llama.rows import Finish, Generation
from workers.llama.sampling import BadGrammar, Sampled, Sampler, Sampling
from workers.llama.text import TextStream
from workers.llama.timings import Work, told
from workers.llama.vocabulary import MOST_BYTES_PER_TOKEN, Vocabulary

RANDOM_SEED = 0xFFFFFFFF  # the engine's word for "any", which is the same one in every process


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of one choice, and the tokens it took; both may be empty."""

    choice: int
    text: str
    tokens: tuple[Sampled, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The end of one choice."""

    choice: int
    finish: Finish


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer took, over all its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    image_tokens: int

    @property
    def body(self) -> dict[str, object]:
        details = {"cached_tokens": self.cached_tokens, "image_tokens": self.image_tokens}
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": details,
        }


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of the engine: an answer to each prompt, or several with each its sampler."""

    prompts: Sequence[Sequence[Item]]
    samplers: Sequence[Sampler]  # as many, or a multiple
    max_tokens: int | None  # None: up to the end of the context
    stops: Sequence[str]
    piece_of: Callable[[int], bytes]

    def prompt_of(self, choice: int) -> Sequence[Item]:
        return self.prompts[choice * len(self.prompts) // len(self.samplers)]


class Choice:
    """One generation's text; its callbacks run on the inference thread."""

    def __init__(self, number: int, order: Order, tell: Callable[[Piece | End], object]) -> None:
        self._number = number
        self._text = TextStream(order.stops)
        self._piece_of = order.piece_of
        self._tell = tell
        self.generation = Generation(
            order.prompt_of(number),
            order.samplers[number],
            order.max_tokens,
            self._take,
            self._end,
        )

    def _take(self, sampled: Sampled) -> bool:
        said = self._text.feed(self._piece_of(sampled.token))
        self._tell(Piece(self._number, said, (sampled,)))
        return not self._text.stopped

    def _end(self, finish: Finish) -> None:
        if rest := self._text.finish():
            self._tell(Piece(self._number, rest))
        self._tell(End(self._number, "stop" if self._text.stopped else finish))


class Answer:
    """All choices of one request. Leaving the block stops what is still being made of it.

    ``async with Answer(…) as answer: async for event in answer.events(): …``
    """

    def __init__(self, generator: Generator, order: Order) -> None:
        loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Piece | End]()
        self._generator = generator
        self._prompts = order.prompts

        def tell(event: Piece | End) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._choices = [Choice(n, order, tell) for n in range(len(order.samplers))]
        self._open_choices = len(self._choices)

    async def __aenter__(self) -> Self:
        for choice in self._choices:
            self._generator.submit(choice.generation)
        return self

    async def __aexit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        for choice in self._choices:
            self._generator.cancel(choice.generation)

    async def events(self) -> AsyncIterator[Piece | End]:
        """Yield what comes, until every choice has ended. Raises ApiError 500, OutOfMemory."""
        while self._open_choices:
            event = await self._events.get()
            if isinstance(event, End):
                self._open_choices -= 1
                if event.finish in ("error", "out_of_memory"):
                    raise failure(event.finish == "out_of_memory")
            yield event

    def usage(self) -> Usage:
        generations = [choice.generation for choice in self._choices]
        each = len(generations) // len(self._prompts)  # of one prompt; the first may pay for all
        return Usage(
            sum(cells(prompt) for prompt in self._prompts),
            sum(len(g.generated) for g in generations),
            sum(
                max(g.cached_tokens for g in generations[first : first + each])
                for first in range(0, len(generations), each)
            ),
            sum(picture_cells(prompt) for prompt in self._prompts),
        )

    @property
    def took_ms(self) -> float:
        """Tell what the engine took for the choices that have ended, one after the other."""
        works = [_work(choice.generation) for choice in self._choices]
        return 1000 * sum(work.prompt_s + work.steps_s for work in works)

    @property
    def timings(self) -> dict[str, object]:
        """Give the field `timings` for the body that tells the last end; before that, no field."""
        if self._open_choices:
            return {}
        return {"timings": told(_work(choice.generation) for choice in self._choices)}


def _work(generation: Generation) -> Work:
    """Tell what one answer took; it must have ended, as the other thread writes until then."""
    watch, cached = generation.watch, generation.cached_tokens
    return Work(
        cells(generation.prompt) - cached,
        cached,
        len(generation.generated),
        watch.prompt_s,
        watch.steps,
        watch.steps_s,
    )


def failure(no_memory: bool) -> wire.ApiError:  # noqa: FBT001  # what the engine told
    """Make the error for what the engine could not compute."""
    if no_memory:
        told = "the engine has no memory left for this; send less, or fewer requests at a time"
        return wire.OutOfMemory(told)
    return wire.ApiError(500, "the engine could not compute this; see its log")


def refuse_too_long(used: int, n_ctx: int, param: str, *, pictures: int = 0) -> None:
    """Raise ApiError 400 for a prompt that leaves no room for one token of an answer.

    `pictures`: how many it has; then there may be more of it than was counted.
    """
    if used >= n_ctx:
        has = f"at least {used} with its pictures ({pictures})" if pictures else f"{used}"
        shorten = "send fewer or smaller ones" if pictures else "shorten it"
        raise wire.bad_request(
            # LiteLLM and crewAI know the error by these words of OpenAI's
            f"This model's maximum context length is {n_ctx} tokens, but the prompt has {has};"
            f" {shorten}, or raise n_ctx in the model's options",
            code="context_length_exceeded",
            param=param,
        )


def refuse_unreadable(text: str, n_ctx: int, param: str) -> None:
    """Raise ApiError 400 for a text so long that even tokenising it would be a waste."""
    refuse_too_long(len(text) // MOST_BYTES_PER_TOKEN, n_ctx, param)


def refuse_unknown(tokens: Sequence[int], vocabulary: Vocabulary, param: str) -> None:
    """Raise ApiError 400 for a token id that the model does not have."""
    if wrong := [token for token in tokens if token >= vocabulary.size]:
        raise wire.bad_request(
            f"token {wrong[0]} is not among this model's {vocabulary.size}", param=param
        )


def max_tokens(asked: int | None, defaults: llama_options.SamplingDefaults) -> int | None:
    """Choose how long an answer may get; None: up to the end of the context."""
    return defaults.max_tokens if asked is None else asked if asked >= 0 else None


def sampling(
    body: SamplingBody,
    defaults: llama_options.SamplingDefaults,
    *,
    grammar: str | None,
    top_logprobs: int | None,
) -> Sampling:
    """Fill a request's sampling from the model's defaults; a random seed when none is given."""

    def chosen(name: str) -> float:
        value = getattr(body, name)
        return getattr(defaults, name) if value is None else value  # type: ignore[no-any-return]  # a number by both shapes

    seed = defaults.seed if body.seed is None else body.seed
    if seed is None or seed < 0:
        seed = secrets.randbelow(RANDOM_SEED)
    return Sampling(
        temperature=chosen("temperature"),
        top_k=int(max(chosen("top_k"), 0)),
        top_p=chosen("top_p"),
        min_p=chosen("min_p"),
        presence_penalty=chosen("presence_penalty"),
        frequency_penalty=chosen("frequency_penalty"),
        repeat_penalty=chosen("repeat_penalty"),
        repeat_last_n=defaults.repeat_last_n,
        seed=seed % RANDOM_SEED,
        logit_bias=body.logit_bias or {},
        grammar=grammar,
        top_logprobs=top_logprobs,
    )


def samplers(vocabulary: Vocabulary, wanted: Sampling, count: int) -> list[Sampler]:
    """Build a chain for each choice, each with its own seed. Raises ApiError 400."""
    refuse_unknown([*wanted.logit_bias], vocabulary, "logit_bias")
    try:
        return [
            Sampler(vocabulary, replace(wanted, seed=(wanted.seed + n) % RANDOM_SEED))
            for n in range(count)
        ]
    except BadGrammar:
        raise wire.bad_request(
            "the grammar cannot be parsed: it must be GBNF with a rule named root, and no rule"
            " (or $ref) may lead straight back to itself",
            param="grammar",
            code="invalid_grammar",
        ) from None
