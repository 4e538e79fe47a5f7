"""Words to tasks, and tokens to regions: the parts of Florence-2 that need no model."""

from __future__ import annotations

import math

import pytest

from workers import wire
from workers.florence2 import answers, tasks
from workers.florence2.answers import Answer, Vocabulary
from workers.florence2.tasks import Shape

LOCATION, POLY, END, SEPARATOR = 1000, 5, 2, 6
WORDS = {10: "a", 11: " café", 12: " cat"}
VOCABULARY = Vocabulary(
    LOCATION,
    POLY,
    END,
    frozenset({0, END, POLY, SEPARATOR, *range(LOCATION, LOCATION + 1000)}),
    lambda ids: "".join(WORDS.get(token, "") for token in ids),
)


def said(*ids: int, probability: float | None = 1.0) -> Answer:
    logprobs = () if probability is None else (math.log(probability),) * len(ids)
    return Answer(ids, logprobs, prompt_tokens=5, ended=True)


def at(*bins: int) -> tuple[int, ...]:
    return tuple(LOCATION + bin_ for bin_ in bins)


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ("describe this image", tasks.DETAILED_CAPTION),
        ("Describe the image in great detail", tasks.MORE_DETAILED_CAPTION),
        ("Read the text!", tasks.OCR),
        ("OCR", tasks.OCR),
        ("What does the sign say?", tasks.OCR),
        ("find the objects", tasks.OBJECTS),
        ("Detect everything", tasks.OBJECTS),
        ("tags", tasks.TAGS),
        ("a short caption of what you read", tasks.CAPTION),
        ("in this context?", tasks.CAPTION),
        ("", tasks.CAPTION),
        ("  <OD> ", tasks.OBJECTS),
    ],
)
def test_words_name_a_task(words: str, task: tasks.Task) -> None:
    """Plain words, or none, find the task that fits them."""
    assert tasks.question_of(words) == tasks.Question(task)


def test_markup_in_words_is_dropped() -> None:
    """A client's words cannot smuggle tokens into the prompt."""
    question = tasks.question_of("<OPEN_VOCABULARY_DETECTION></s>a <loc_5>cat<CAPTION>")

    assert question.text == "a  cat"


def test_a_region_is_four_locations() -> None:
    """The tasks about a region take its tokens as they are."""
    region = "<loc_1><loc_2><loc_30><loc_999>"

    assert tasks.question_of(f"<REGION_TO_OCR>{region}").text == region


@pytest.mark.parametrize(
    "words", ["<NOPE>", "<CAPTION> x", "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_OCR><loc_1>"]
)
def test_what_a_task_does_not_take_is_refused(words: str) -> None:
    """Each is a 400 that names what the task takes."""
    with pytest.raises(wire.ApiError, match="<") as raised:
        tasks.question_of(words)

    assert raised.value.status == 400


def test_boxes_are_in_pixels_with_their_label() -> None:
    """One label may have several boxes; letters outside ASCII stay."""
    answer = said(0, 10, 11, *at(0, 100, 499, 999), *at(1, 2, 3, 4), END, probability=0.5)

    found = answers.regions(answer, Shape.BOXES, VOCABULARY, (1000, 500))

    assert [(region.label, region.points) for region in found] == [
        ("a café", (0.5, 50.2, 499.5, 499.8)),
        ("a café", (1.5, 1.2, 3.5, 2.2)),
    ]
    assert [region.confidence for region in found] == [0.5, 0.5]


def test_odd_boxes_are_put_right_or_dropped() -> None:
    """Turned corners are put in order; boxes without an area or cut off are left out."""
    answer = said(10, *at(900, 800, 100, 200), 12, *at(5, 5, 5, 9), 12, *at(1, 2, 3), END)

    found = answers.regions(answer, Shape.BOXES, VOCABULARY, (1000, 1000))

    assert [region.points for region in found] == [(100.5, 200.5, 900.5, 800.5)]


def test_confidence_is_the_geometric_mean_of_label_and_box() -> None:
    """A box is as sure as its tokens; after a search by beams nobody knows."""
    ids = (10, *at(1, 2, 30, 40))
    logprobs = tuple(math.log(p) for p in (0.1, 1, 1, 1, 1))

    (found,) = answers.regions(
        Answer(ids, logprobs, 0, ended=True), Shape.BOXES, VOCABULARY, (9, 9)
    )
    (unsure,) = answers.regions(said(*ids, probability=None), Shape.BOXES, VOCABULARY, (9, 9))

    assert found.confidence == pytest.approx(0.1 ** (1 / 5), abs=1e-4)
    assert unsure.confidence is None


def test_polygons_are_parted() -> None:
    """A separator ends a polygon and keeps the label; <poly> makes one among boxes."""
    corners = at(0, 0, 500, 0, 500, 500)
    answer = said(10, POLY, *corners, SEPARATOR, *corners, END)

    for shape in (Shape.POLYGONS, Shape.BOXES):
        found = answers.regions(answer, shape, VOCABULARY, (100, 100))
        assert [(region.polygon, len(region.points)) for region in found] == [(True, 6)] * 2


def test_quads_have_eight_numbers() -> None:
    """Text regions keep their four free corners."""
    answer = said(10, *at(1, 1, 9, 1, 9, 9, 1, 9), END)

    (found,) = answers.regions(answer, Shape.QUADS, VOCABULARY, (1000, 1000))

    assert found.points == (1.5, 1.5, 9.5, 1.5, 9.5, 9.5, 1.5, 9.5)


@pytest.mark.parametrize(
    ("ids", "degenerate"),
    [((0, 0, 0, 0), True), ((0, END), False), ((0, 10, END), False), ((0, *at(1), END), False)],
)
def test_nothing_but_special_tokens_is_degenerate(
    ids: tuple[int, ...], *, degenerate: bool
) -> None:
    """An empty answer is none of it: a picture may have no text."""
    assert answers.is_degenerate(ids, VOCABULARY) is degenerate


def test_tags_are_labels_once() -> None:
    """In the order of the answer, in lower case."""
    boxes = [answers.Region(label, (0,) * 4, 1.0) for label in ("Cat", "a dog", "", "cat")]

    assert answers.tags(boxes) == ["cat", "a dog"]
