"""Questions that are answered together: each row stops, streams and is told by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self

import torch
from transformers import NoRepeatNGramLogitsProcessor

from workers import wire
from workers.florence2.answers import Answer, Vocabulary, is_degenerate
from workers.florence2.tasks import Question, Shape

NO_REPEAT = 3  # tokens; as published for captions. In boxes and OCR it forbids true answers
HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of missing bytes
DEGENERATE = (
    "the model said nothing but special tokens (degenerate output), as Florence-2-large-ft is"
    " known to; use the checkpoint without -ft, or another dtype"
)

OnText = Callable[[str], None]
"""Takes a text as far as it has come; that may be shorter than before, when it is tried again."""


class Left(Exception):
    """The client is gone: nobody waits for the answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A picture that is to be looked at, and what is asked of it."""

    pixels: torch.Tensor  # as `Engine.prepare` makes them
    questions: Sequence[Question]
    max_tokens: int | None  # of each answer
    on_text: OnText | None  # hears a text as it comes, unless beams are searched
    answers: Sequence[Future[Answer]]  # one for each question
    left: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def at(
        cls,
        pixels: torch.Tensor,
        questions: Sequence[Question],
        max_tokens: int | None = None,
        on_text: OnText | None = None,
    ) -> Self:
        answers = [Future[Answer]() for _ in questions]
        for answer in answers:
            answer.set_running_or_notify_cancel()  # so that nobody but the engine ends it
        return cls(pixels, questions, max_tokens, on_text, answers)


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A question about a picture that was looked at."""

    look: Look
    sight: torch.Tensor  # (1, places, width)
    prompt: torch.Tensor  # (tokens,) int64
    question: Question
    most_tokens: int
    answer: Future[Answer]
    begun_s: float  # on the monotonic clock: when the look began

    @property
    def is_caption(self) -> bool:
        return self.question.task.shape is Shape.CAPTION

    @property
    def is_left(self) -> bool:
        return self.look.left.is_set()


class Rows:
    """The questions of one `generate`, which asks this object before and after each token."""

    def __init__(self, asks: Sequence[Ask], vocabulary: Vocabulary, beams: int) -> None:
        self.asks = asks
        self.beams = beams
        self._vocabulary = vocabulary
        self._captions = [n for n, ask in enumerate(asks) if ask.is_caption]
        self._without_repeats = NoRepeatNGramLogitsProcessor(NO_REPEAT)
        self._logprobs: list[torch.Tensor] = []  # one (rows,) for each token

    def before_token(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Forbid captions to repeat themselves, and note how probable each greedy pick is.

        One number a token, and not its scores: those are 200 kB each. Not for beams.
        """
        rows = self._captions
        if rows:
            scores[rows] = self._without_repeats(ids[rows], scores[rows])
        self._logprobs.append(torch.log_softmax(scores.float(), -1).amax(-1))
        return scores

    def after_token(self, ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
        """Tell of each row whether it is over."""
        if self.beams > 1:  # only the end of the search says which beam is the answer
            nobody_waits = all(ask.is_left for ask in self.asks)
            return torch.full((len(ids),), nobody_waits, device=ids.device)
        said = ids[:, 1:].tolist()  # the first is the decoder's start
        return torch.tensor([self._hear(n, row) for n, row in enumerate(said)], device=ids.device)

    def settle(self, output: torch.Tensor) -> None:
        """Resolve what is left: the answers of a search by beams."""
        for number, (ask, row) in enumerate(zip(self.asks, output[:, 1:].tolist(), strict=True)):
            if not ask.answer.done():
                end = self._vocabulary.end
                self._resolve(number, row[: row.index(end) + 1] if end in row else row)

    def _hear(self, number: int, ids: list[int]) -> bool:
        ask = self.asks[number]
        if ask.answer.done():
            return True
        if ask.is_left:
            ask.answer.set_exception(Left())
            return True
        if ask.look.on_text is not None:
            self._tell(ids, ask.look.on_text)
        over = ids[-1] == self._vocabulary.end or len(ids) >= ask.most_tokens
        if over:
            self._resolve(number, ids)
        return over

    def _tell(self, ids: list[int], on_text: OnText) -> None:
        """Hold back a blank at the end, and a character whose bytes are not all there."""
        text = self._vocabulary.decode(ids).rstrip(HALF_A_CHARACTER).strip()
        if text:
            on_text(text)

    def _resolve(self, number: int, ids: list[int]) -> None:
        ask = self.asks[number]
        if is_degenerate(ids, self._vocabulary):
            error = wire.ApiError(500, DEGENERATE, code="degenerate_output")
            ask.answer.set_exception(error)
            return
        logprobs = [step[number] for step in self._logprobs[: len(ids)]]
        answer = Answer(
            tuple(ids),
            tuple(torch.stack(logprobs).tolist()) if logprobs else (),
            prompt_tokens=len(ask.prompt),
            ended=ids[-1:] == [self._vocabulary.end],
            took_s=time.monotonic() - ask.begun_s,
        )
        ask.answer.set_result(answer)
