"""What is told of a picture: words, places, and how sure the model was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from workers.descriptions.asked import Box, Task


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a picture, in pixels of the upright original."""

    label: str  # "" where the task gives none
    bbox: Box
    confidence: float | None  # None: the engine cannot tell
    quad: Sequence[float] | None = None  # x, y of four corners, of text that may lie aslant
    polygon: Sequence[float] | None = None  # x, y, x, y, … of an outline

    @property
    def as_json(self) -> dict[str, object]:
        told = {"label": self.label, "bbox": self.bbox, "confidence": self.confidence}
        shapes = {"quad": self.quad, "polygon": self.polygon}
        return told | {name: shape for name, shape in shapes.items() if shape is not None}


Answer: TypeAlias = str | Sequence[str] | Sequence[Place]
"""A caption or text, tags, or places."""


@dataclass(frozen=True, slots=True)
class Description:
    """All that was asked of one picture."""

    width_px: int  # of the upright original
    height_px: int
    answers: Mapping[Task, Answer]
    ms: float  # that the engine worked on it
    language: str | None = None  # of the captions; of text in the picture nobody knows
    confidences: Mapping[Task, float] = field(default_factory=dict)  # of answers that are text
    confidence_kind: str | None = None  # what the confidences are; None: there are none
    cut: Sequence[Task] = ()  # whose answer ended at the limit of tokens

    def as_json(self, model: str) -> dict[str, object]:
        """Name every field, those that were not asked for too, as null."""
        return {
            **{task.field: _as_json(self.answers.get(task)) for task in Task},
            "language": self.language,
            "confidences": {task.field: sure for task, sure in self.confidences.items()},
            "confidence_kind": self.confidence_kind,
            "cut": [task.field for task in self.cut],
            "ms": round(self.ms, 1),
            "width": self.width_px,
            "height": self.height_px,
            "model": model,
        }


def _as_json(answer: Answer | None) -> object:
    if answer is None or isinstance(answer, str):
        return answer
    return [part.as_json if isinstance(part, Place) else part for part in answer]
