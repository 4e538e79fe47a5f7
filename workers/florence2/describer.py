"""Descriptions by Florence-2: which of its tasks is meant, and what its answers tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from workers import descriptions
from workers.descriptions import Asked, Description, Place, Sent, Task
from workers.florence2 import answers, tasks
from workers.florence2.answers import Answer, Region
from workers.florence2.eyes import Eyes, Seen
from workers.florence2.tasks import Question, Shape
from workers.florence2.turns import Turns

MEANT = {
    Task.CAPTION: tasks.CAPTION,
    Task.DETAILED_CAPTION: tasks.DETAILED_CAPTION,
    Task.MORE_DETAILED_CAPTION: tasks.MORE_DETAILED_CAPTION,
    Task.OCR: tasks.OCR,
    Task.OCR_WITH_REGIONS: tasks.TASKS["<OCR_WITH_REGION>"],
    Task.OBJECTS: tasks.OBJECTS,
    Task.DENSE_REGIONS: tasks.TASKS["<DENSE_REGION_CAPTION>"],
    Task.REGION_PROPOSALS: tasks.TASKS["<REGION_PROPOSAL>"],
    Task.PHRASE_GROUNDING: tasks.TASKS["<CAPTION_TO_PHRASE_GROUNDING>"],
    Task.OPEN_VOCABULARY: tasks.TASKS["<OPEN_VOCABULARY_DETECTION>"],
    Task.REFERRING_SEGMENTATION: tasks.TASKS["<REFERRING_EXPRESSION_SEGMENTATION>"],
    Task.REGION_TO_CATEGORY: tasks.TASKS["<REGION_TO_CATEGORY>"],
    Task.REGION_TO_DESCRIPTION: tasks.TASKS["<REGION_TO_DESCRIPTION>"],
    Task.REGION_TO_OCR: tasks.TASKS["<REGION_TO_OCR>"],
    Task.REGION_TO_SEGMENTATION: tasks.TASKS["<REGION_TO_SEGMENTATION>"],
    Task.TAGS: tasks.OBJECTS,  # the published checkpoints have no task for tags
}
CONFIDENCE_KIND = "token_probability"
NO_LANGUAGE = {Task.OCR, Task.OCR_WITH_REGIONS, Task.REGION_TO_OCR}
"""Text in the picture, of which the model does not say the language; all else is in English."""


class Describer:
    """Florence-2 for `descriptions.Face`: one look at a picture for all that is asked of it."""

    name = "florence2"
    tasks: Collection[Task] = tuple(MEANT)

    def __init__(self, turns: Turns, eyes: Eyes, batch: int) -> None:
        self._turns = turns
        self._eyes = eyes
        self.at_once = 2 * batch  # while some are answered, the next ones are decoded

    async def describe(self, sent: Sent, asked: Asked) -> Description:
        seen = await self._eyes.see(sent.read, param=sent.param)
        questions = {task: _question(task, asked, seen) for task in asked.tasks}
        distinct = tuple(dict.fromkeys(questions.values()))  # objects and tags are one
        given = await self._turns.answers(seen.pixels, distinct, asked.max_tokens)
        answered = dict(zip(distinct, given, strict=True))
        return self._told(seen, {task: answered[questions[task]] for task in asked.tasks})

    def _told(self, seen: Seen, given: dict[Task, Answer]) -> Description:
        texts = {t: answers.confidence(a) for t, a in given.items() if MEANT[t].shape.is_text}
        return Description(
            seen.width,
            seen.height,
            {task: self._answer(task, answer, seen) for task, answer in given.items()},
            ms=1000 * max(answer.took_s for answer in given.values()),
            language=None if NO_LANGUAGE.issuperset(given) else "en",
            confidences={task: sure for task, sure in texts.items() if sure is not None},
            confidence_kind=CONFIDENCE_KIND,
            cut=[task for task, answer in given.items() if not answer.ended],
        )

    def _answer(self, task: Task, answer: Answer, seen: Seen) -> descriptions.Answer:
        shape, engine = MEANT[task].shape, self._turns.engine
        if shape.is_text:
            return engine.text_of(answer)
        found = answers.regions(answer, shape, engine.vocabulary, (seen.width, seen.height))
        if task is Task.TAGS:
            return answers.tags(found)
        return [_place(region, shape) for region in found]


def _question(task: Task, asked: Asked, seen: Seen) -> Question:
    if task.takes_text:
        return Question(MEANT[task], tasks.words_of(asked.text or ""), field="text")
    if task.takes_region:
        box = asked.region_in(seen.width, seen.height)
        return Question(MEANT[task], answers.located(box, (seen.width, seen.height)))
    return Question(MEANT[task])


def _place(region: Region, shape: Shape) -> Place:
    if region.polygon:
        box = _around(region.points)
        return Place(region.label, box, region.confidence, polygon=region.points)
    if shape is Shape.QUADS:
        box = _around(region.points)
        return Place(region.label, box, region.confidence, quad=region.points)
    left, top, right, bottom = region.points
    return Place(region.label, (left, top, right, bottom), region.confidence)


def _around(points: Sequence[float]) -> descriptions.Box:
    across, down = points[::2], points[1::2]
    return min(across), min(down), max(across), max(down)
