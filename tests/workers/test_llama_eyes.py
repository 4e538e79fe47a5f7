"""What becomes of a request's pictures before the engine: their places, bounds and turns."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.workers.llama_loaded import eyes_of, field, loaded_model, prompt_of, vision_of
from workers import wire
from workers.llama.album import Item, Media, PictureId
from workers.llama.loading import Loaded
from workers.llama.vision import Vision

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]

MANY = 40  # more than there are threads for anybody's use


class Gate:
    """Stands before a projector: counts the pictures, and lets them pass once it is open."""

    def __init__(self, vision: Vision) -> None:
        self.passed = 0
        self.reached, self.open = threading.Event(), threading.Event()
        self._vision = vision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vision, name)

    def items(self, picture: PictureId, image: Image.Image) -> list[Item]:
        self.reached.set()
        self.open.wait()
        self.passed += 1
        return self._vision.items(picture, image)


@pytest.fixture(scope="module")
def loaded(models: Path) -> Iterator[Loaded]:
    with loaded_model(models, models / "llava-mmproj.gguf") as found:
        yield found


def pictures_in(items: list[Item]) -> list[PictureId]:
    return [item.picture for item in items if isinstance(item, Media)]


def test_pictures_stand_where_the_template_puts_them(loaded: Loaded) -> None:
    """Some templates tell the last message first, or twice; one that leaves one out is refused."""
    mark, fields = vision_of(loaded).mark, [field("red"), field("blue")]
    red, blue = (one.id for one in fields)

    turned = prompt_of(eyes_of(loaded), f"{mark(1)} and {mark(0)} and {mark(1)}.", fields)

    assert pictures_in(turned) == [blue, red, blue]
    with pytest.raises(wire.ApiError, match="leaves out a picture"):
        prompt_of(eyes_of(loaded), f"{mark(1)} and {mark(1)}.", fields)


def test_known_pictures_count_among_the_pixels_of_a_request(loaded: Loaded) -> None:
    """What is refused does not depend on what the worker has seen; twice the same is once."""
    vision, mark = vision_of(loaded), vision_of(loaded).mark
    eyes = eyes_of(loaded, max_request_pixels=2 * 64 * 64)

    fits = prompt_of(eyes, f"{mark(0)}{mark(1)}{mark(2)}.", [*map(field, ("red", "red", "blue"))])
    for item in fits:
        if isinstance(item, Media):
            vision._encoded(item)

    assert len(pictures_in(fits)) == 3
    fields = [field(colour) for colour in ("yellow", "red", "blue")]
    for order in ((0, 1, 2), (1, 2, 0)):
        with pytest.raises(wire.ApiError) as raised:
            prompt_of(eyes, "".join(map(mark, order)) + ".", fields)
        assert raised.value.code == "image_too_large"


async def test_pictures_that_wait_are_in_nobodys_way(loaded: Loaded) -> None:
    """They keep no thread from others, and those of a client that left are never looked at."""
    gate = Gate(vision_of(loaded))
    eyes = eyes_of(dataclasses.replace(loaded, vision=gate))  # type: ignore[arg-type]  # a stand-in
    text, fields = f"{gate.mark(0)}{gate.mark(1)}.", [field("navy"), field("teal")]

    async with asyncio.TaskGroup() as tasks:
        left = [tasks.create_task(eyes.prompt(text, fields)) for _ in range(MANY)]
        await asyncio.to_thread(gate.reached.wait)
        for one in left:
            one.cancel()
        await asyncio.wait(left)
        tasks.create_task(eyes.prompt(f"{gate.mark(0)}.", [field("lime")]))
        await asyncio.to_thread(gate.open.set)

    assert gate.passed == 2
