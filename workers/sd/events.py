"""A request's steps and pictures as OpenAI's image events, with progress beside them."""

from __future__ import annotations

import asyncio
import time

from workers import wire
from workers.sd import answers
from workers.sd.bodies import ImageBody
from workers.sd.plan import Plan
from workers.sd.turns import Turn


class Listener:
    """Hears of a request under way; this one keeps it to itself."""

    async def at_step(self, turn: Turn, made: Plan) -> None:
        """Hear of a step."""

    async def at_picture(self, turn: Turn, made: Plan, picture: answers.Encoded) -> None:
        """Hear of a finished picture."""


class Events(Listener):
    """Tells a stream; `kind` is the first half of the events' names, such as image_edit."""

    def __init__(self, events: wire.EventStream, body: ImageBody, kind: str) -> None:
        self._events = events
        self._body = body
        self._kind = kind
        self._partials = 0  # of the picture under way

    async def at_step(self, turn: Turn, made: Plan) -> None:
        await self._send("progress", turn.progress)
        if turn.preview is None or not _is_due(turn, self._partials, self._body.partial_images):
            return
        shown = made.finished(turn.preview)
        seed = made.seeds[turn.image - 1]
        encoded = await asyncio.to_thread(answers.encode, shown, self._body, made, seed)
        number = self._partials
        self._partials += 1
        told = {"partial_image_index": number, **self._picture(made, encoded)}
        await self._send("partial_image", told)

    async def at_picture(self, turn: Turn, made: Plan, picture: answers.Encoded) -> None:
        self._partials = 0
        told = {
            **self._picture(made, picture),
            "image": turn.image,
            "images": turn.images,
            "seed": picture.seed,
            "parameters": answers.parameters(made.job),
            **answers.warnings_of([picture]),
        }
        await self._send("completed", told)

    def _picture(self, made: Plan, picture: answers.Encoded) -> dict[str, object]:
        """Tell a picture with all the fields that OpenAI's events have."""
        width, height = made.answer_size
        return {
            "b64_json": answers.base64_of(picture),
            "created_at": int(time.time()),
            "size": f"{width}x{height}",
            "quality": "auto",
            "background": "opaque",
            "output_format": answers.kind(self._body),
        }

    async def _send(self, what: str, fields: dict[str, object]) -> None:
        name = f"{self._kind}.{what}"
        await self._events.send({"type": name, **fields}, name=name)


def _is_due(turn: Turn, sent: int, wanted: int) -> bool:
    """Tell whether to show a preview now; they lie evenly between the first step and the last."""
    return sent < min(wanted, turn.step * (wanted + 1) // max(turn.steps, 1))
