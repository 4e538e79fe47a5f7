"""Tokens of an answer → labelled regions in pixels. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from workers.florence2.tasks import Shape

LOCATIONS = 1000  # <loc_0> … <loc_999> cut each side of the picture in that many bins
_EMPTY_ANSWER_TOKENS = 2  # <s></s>: a picture may well have no text in it


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one question."""

    ids: tuple[int, ...]  # with <s>, and </s> when it came to an end
    logprobs: tuple[float, ...]  # one per id; empty when beams were searched
    prompt_tokens: int  # the picture's among them
    ended: bool  # False: cut at the limit of tokens
    took_s: float = 0.0  # the look at the picture included


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What must be known of a tokenizer to read regions."""

    first_location: int  # the id of <loc_0>; the others follow in order
    poly: int  # the id of <poly>
    end: int  # the id of </s>
    special: frozenset[int]
    decode: Callable[[Sequence[int]], str]  # drops special tokens

    def location(self, token: int) -> int | None:
        bin_ = token - self.first_location
        return bin_ if 0 <= bin_ < LOCATIONS else None


@dataclass(frozen=True, slots=True)
class Region:
    """A labelled place; `points` are x, y, x, y, … in pixels of the upright picture."""

    label: str
    points: tuple[float, ...]
    confidence: float | None  # None when beams were searched
    polygon: bool = False


@dataclass(slots=True)
class _Group:
    """A label and the locations that follow it, up to the next word or special token."""

    label: list[int] = field(default_factory=list)
    label_logprobs: list[float] = field(default_factory=list)
    bins: list[int] = field(default_factory=list)
    bin_logprobs: list[float] = field(default_factory=list)
    polygon: bool = False


def is_degenerate(ids: Iterable[int], vocabulary: Vocabulary) -> bool:
    """Tell an answer like `<s><s><s><s>…`, for which some checkpoints are known."""
    tokens = list(ids)
    return len(tokens) > _EMPTY_ANSWER_TOKENS and all(
        token in vocabulary.special and vocabulary.location(token) is None for token in tokens
    )


def regions(
    answer: Answer, shape: Shape, vocabulary: Vocabulary, size_px: tuple[int, int]
) -> list[Region]:
    """Read the regions of an answer; `size_px` is width and height of the upright picture.

    A box comes out with its corners in order; one without an area, or cut off, is dropped.
    The confidence is the geometric mean of the probabilities that the model gave to the tokens
    of the label and of the region: uncalibrated, but it orders.
    """
    found = []
    for group in _groups(answer, vocabulary):
        polygon = group.polygon or shape is Shape.POLYGONS
        step = len(group.bins) & ~1 if polygon else 8 if shape is Shape.QUADS else 4
        label = vocabulary.decode(group.label).strip()
        for start in range(0, len(group.bins) - step + 1, step or 1):
            points = _pixels(group.bins[start : start + step], size_px)
            if step == 4:  # noqa: PLR2004  # two corners
                points = _in_order(points)
            if _has_area(points):
                logprobs = group.label_logprobs + group.bin_logprobs[start : start + step]
                found.append(Region(label, points, _mean_probability(logprobs), polygon))
    return found


def confidence(answer: Answer) -> float | None:
    """Tell how sure the model was of a text, as `regions` does; None when beams were searched."""
    logprobs = answer.logprobs[1:]  # of <s>, which is forced, it is always sure
    return _mean_probability(logprobs) if logprobs else None


def located(box: tuple[float, float, float, float], size_px: tuple[int, int]) -> str:
    """Write a box, in pixels of the upright picture, as a task takes it."""
    bins = [
        min(int(edge * LOCATIONS / size_px[place % 2]), LOCATIONS - 1)
        for place, edge in enumerate(box)
    ]
    return "".join(f"<loc_{bin_}>" for bin_ in bins)


def tags(found: Iterable[Region]) -> list[str]:
    """Name what was found, each once, in the order of the answer."""
    return list(dict.fromkeys(region.label.lower() for region in found if region.label))


def _groups(answer: Answer, vocabulary: Vocabulary) -> Iterator[_Group]:
    group = _Group()
    logprobs = answer.logprobs or (math.nan,) * len(answer.ids)
    for token, logprob in zip(answer.ids, logprobs, strict=True):
        bin_ = vocabulary.location(token)
        if bin_ is not None:
            group.bins.append(bin_)
            group.bin_logprobs.append(logprob)
            continue
        if group.bins:
            yield group
            kept = group if token in vocabulary.special else _Group()  # <sep>: same label
            group = _Group(list(kept.label), list(kept.label_logprobs), polygon=kept.polygon)
        if token == vocabulary.poly:
            group.polygon = True
        elif token not in vocabulary.special:
            group.label.append(token)
            group.label_logprobs.append(logprob)
    if group.bins:
        yield group


def _pixels(bins: Sequence[int], size_px: tuple[int, int]) -> tuple[float, ...]:
    """Take the middle of each bin; even places are x, odd ones y."""
    return tuple(
        round((bin_ + 0.5) * size_px[place % 2] / LOCATIONS, 1) for place, bin_ in enumerate(bins)
    )


def _in_order(box: tuple[float, ...]) -> tuple[float, ...]:
    left, top, right, bottom = box
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def _has_area(points: tuple[float, ...]) -> bool:
    return len(set(points[::2])) > 1 and len(set(points[1::2])) > 1


def _mean_probability(logprobs: Sequence[float]) -> float | None:
    mean = sum(logprobs) / len(logprobs)
    return None if math.isnan(mean) else round(math.exp(mean), 4)
