"""Training the painter: flow matching on the tiny world, a minute and a half on one thread.

A prompt without a place means the centre, so that a picture does not have to be decided upon
in the noise; that alone made shapes whole. Where little noise is left the picture tells the
place, and prompts may be silent about it: so a picture given to begin with stays where it is.
Lessons with a reference keep its place and whatever the prompt does not name. Other sizes of
picture and references come in when the plain subject is half known: together with it from the
start they only slowed it down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tiny import image_text
from tiny.image_painter import PATCH_CELLS, REFERENCE, USED, Painter, Words, grid_turns
from tiny.image_world import World, paint_world
from tiny.scenes import COLOURS, PLACES, SHAPES

STEPS = 1500
_PEAK_RATE = 3e-3
_WARM_UP = 0.05  # of the steps
_SHIFT = 7.0  # how far the engine's schedule leans to high noise, exp(mu) for a few steps
_PLAIN_NOISE = 0.7  # below it a patch shows what it belongs to
_TOLD = {"colour": 0.9, "shape": 0.9, "place": 0.2}  # how often the prompt has a word for it
_CENTRED = 0.4  # of the pictures at least
_LONGEST = 24  # tokens of a prompt
_MOST_WORDS = 4  # known ones in a prompt
_PLACE_WORDS = {place: place.split() for place in PLACES}

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Subject:
    """One kind of lesson."""

    side_px: int = 128
    batch: int = 16
    edit: bool = False


_BASICS = 0.55  # of the steps are for the plain subject alone, then all take turns
_TURNS = (
    *(Subject(), Subject(64), Subject(), Subject(256, batch=5)),
    *(Subject(), Subject(edit=True), Subject(), Subject(256, batch=5)),
)
_COVER_WEIGHT = 3.0  # in the loss: the cover alone tells a circle from a square


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to paint, how much noise is on it, what is told, and what may be looked at."""

    target: Tensor
    noise: Tensor
    words: Words
    reference: Tensor | None


def train(seed: int = 0, steps: int = STEPS) -> Painter:
    """Teach a painter `steps` lessons; on one kind of machine a seed decides all."""
    rng = np.random.default_rng(seed)
    worlds = {side: paint_world(side, rng) for side in (64, 128, 256)}
    with _torch_settings():
        torch.manual_seed(seed)
        painter = Painter()
        optimiser = torch.optim.AdamW(
            painter.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=0, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / steps))
        for step in range(steps):
            subject = _TURNS[step % len(_TURNS) if step > _BASICS * steps else 0]
            world = worlds[subject.side_px]
            loss = _loss(painter, _lesson(world, subject, rng), world.side)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            torch.nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return painter


@contextmanager
def _torch_settings() -> Iterator[None]:
    """Use one thread (two that wait for each other crawl on a busy machine), bfloat16 products."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def _rate(done: float) -> float:
    return min(1.0, done / _WARM_UP) * (1 - done)


def _loss(painter: Painter, lesson: Lesson, side: int) -> Tensor:
    level = lesson.noise[:, None, None]
    grain = torch.randn_like(lesson.target)
    patches = (1 - level) * lesson.target + level * grain
    turns = grid_turns(side, side)
    if lesson.reference is not None:
        patches = torch.cat([patches, lesson.reference], 1)
        turns = torch.cat([turns, grid_turns(side, side, REFERENCE)])
    guess = painter(patches, lesson.noise, lesson.words, turns)[:, : side * side]
    weight = torch.ones(USED)
    weight[: PATCH_CELLS**2] = _COVER_WEIGHT
    error = (guess - grain + lesson.target).square() * weight
    loss: Tensor = error.mean() / weight.mean()
    return loss


def _lesson(world: World, subject: Subject, rng: np.random.Generator) -> Lesson:
    batch = subject.batch
    shape, place, variant, colour = (rng.integers(0, n, batch) for n in world.patches.shape[:4])
    place = np.where(rng.random(batch) < _CENTRED, 0, place)  # PLACES begins with the centre
    even = rng.random(batch)
    noise = _SHIFT * even / (1 + (_SHIFT - 1) * even)
    told = {name: rng.random(batch) < often for name, often in _TOLD.items()}
    told["place"] |= (place > 0) & ((noise > _PLAIN_NOISE) | (rng.random(batch) < 0.5))
    reference = None
    if subject.edit:
        told["place"][:] = False
        old_shape = np.where(told["shape"], rng.integers(0, len(SHAPES), batch), shape)
        old_colour = np.where(told["colour"], rng.integers(0, len(COLOURS), batch), colour)
        reference = world.patches[old_shape, place, variant, old_colour]
    return Lesson(
        world.patches[shape, place, variant, colour],
        torch.from_numpy(noise.astype(np.float32)),
        _words(_prompts(told, colour, shape, place), rng),
        reference,
    )


def _prompts(told: dict[str, _Flags], *chosen: npt.NDArray[np.int64]) -> list[list[str]]:
    """List the known words of each prompt; `chosen` are its colour, shape and place."""
    sayings = ([[c] for c in COLOURS], [[s] for s in SHAPES], list(_PLACE_WORDS.values()))
    prompts: list[list[str]] = [[] for _ in chosen[0]]
    for saying, flags, choice in zip(sayings, told.values(), chosen, strict=True):
        for prompt, flag, index in zip(prompts, flags, choice, strict=True):
            prompt.extend(saying[index] if flag else ())
    return prompts


def _words(prompts: list[list[str]], rng: np.random.Generator) -> Words:
    """Put each prompt into the chat template, its words anywhere among unknown ones."""
    head, tail = image_text.HEAD, image_text.TAIL
    shape = (len(prompts), len(head) + _MOST_WORDS + len(tail))
    rows = np.zeros((*shape, image_text.WIDTH), np.float32)
    places = np.zeros(shape, np.float32)
    for row, prompt in enumerate(prompts):
        length = int(rng.integers(len(prompt), _LONGEST))
        spots = len(head) + rng.permutation(length)[: len(prompt)]
        end = len(head) + length
        tokens = (*head, *prompt, *tail)
        at = (*range(len(head)), *spots, *range(end, end + len(tail)))
        for column, (token, spot) in enumerate(zip(tokens, at, strict=True)):
            rows[row, column, image_text.INDEX[token]] = image_text.LOUDNESS
            places[row, column] = spot
    return Words(torch.from_numpy(rows), torch.from_numpy(places))
