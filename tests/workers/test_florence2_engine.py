"""The engine of Florence-2 and the turns on it, in this process: what a socket cannot show."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.workers.florence2_pictures import Shown
from workers import serve, wire
from workers.florence2 import tasks
from workers.florence2.options import Florence2Options

if TYPE_CHECKING:
    from workers.florence2.engine import Engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(90)]
CAPTION = tasks.Question(tasks.CAPTION)


def load(directory: Path, **more: object) -> Engine:
    # torch takes seconds to import; tests of other workers need not wait for it
    from workers.florence2 import loading  # noqa: PLC0415

    options = {"model": str(directory), "device": "cpu", "n_threads": 1, "dtype": "float32"}
    return loading.load(Florence2Options.model_validate(options | more), lambda _: None)


@pytest.fixture(scope="module")
def engine(models: Path) -> Engine:
    return load(models / "florence2")


def test_a_client_that_left_stops_the_look(engine: Engine) -> None:
    """The encoder stops at its next layer, and the engine works on for others."""
    from workers.florence2.engine import Left  # noqa: PLC0415  # as above

    left = threading.Event()
    left.set()
    with pytest.raises(Left), engine.looking(left):
        engine.look(Shown().draw())

    with engine.looking(threading.Event()):
        sight = engine.look(Shown().draw())
        assert engine.text_of(engine.answer(sight, CAPTION)) == "a red circle"


def test_a_client_that_leaves_stops_the_answer(engine: Engine) -> None:
    """No token is made after the one at which the client left."""
    from workers.florence2.engine import Left  # noqa: PLC0415  # as above

    left, pieces = threading.Event(), list[str]()

    def leave_at(piece: str) -> None:
        pieces.append(piece)
        left.set()

    with engine.looking(left):
        sight = engine.look(Shown().draw())
        with pytest.raises(Left):
            engine.answer(sight, CAPTION, on_text=leave_at)

    assert pieces == ["a"]


def test_beams_give_the_same_caption_and_no_pieces(models: Path) -> None:
    """A search by beams is for captions only: boxes stay greedy and have confidences."""
    searching = load(models / "florence2", num_beams=3, dtype="bfloat16")
    pieces = list[str]()

    with searching.looking(threading.Event()):
        sight = searching.look(Shown().draw())
        caption = searching.answer(sight, CAPTION, on_text=pieces.append)
        boxes = searching.answer(sight, tasks.Question(tasks.OBJECTS))

    assert searching.text_of(caption) == "a red circle"
    assert (caption.logprobs, pieces) == ((), [])
    assert len(boxes.logprobs) == len(boxes.ids)


def test_a_missing_tensor_is_no_random_one(models: Path, tmp_path: Path) -> None:
    """Weights that lack a tensor are refused by its name."""
    from safetensors import numpy as tensors  # noqa: PLC0415  # with torch

    shutil.copytree(models / "florence2", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = tensors.load_file(path)
    name = next(name for name in sorted(weights) if "vision_tower" in name)
    del weights[name]
    tensors.save_file(weights, path, metadata={"format": "pt"})

    with pytest.raises(serve.LoadFailed, match="1 tensors are missing") as raised:
        load(tmp_path / "model")

    assert raised.value.reason == "bad_file"


def test_a_device_that_is_not_there_is_told(models: Path) -> None:
    """The load fails for the options' sake, before any weight is read."""
    with pytest.raises(serve.LoadFailed, match="cuda:99 is not there") as raised:
        load(models / "florence2", device="cuda:99")

    assert raised.value.reason == "bad_options"


async def test_work_that_waits_and_is_left_never_begins(engine: Engine) -> None:
    """Turns go in order, and a place in the queue is given back."""
    from workers.florence2.turns import Turns  # noqa: PLC0415  # as above

    turns, gate, begun = Turns(engine), threading.Event(), list[str]()
    with turns.started(lambda _: gate.wait()) as first:
        with turns.started(lambda _: begun.append("left")):
            pass
        with turns.started(lambda _: begun.append("stayed")) as last:
            gate.set()
            await asyncio.gather(first, last)

    assert begun == ["stayed"]


@pytest.mark.parametrize("where", ["gpu", "cpu"])
async def test_no_memory_is_an_answer_and_not_an_end(engine: Engine, where: str) -> None:
    """A picture too many gets 503, and the next work its result. On a CPU torch has no class."""
    import torch  # noqa: PLC0415  # as above

    from workers.florence2.turns import Turns  # noqa: PLC0415  # as above

    def too_much(_: Engine) -> None:
        if where == "cpu":
            torch.empty(1 << 50)
        raise torch.OutOfMemoryError

    turns = Turns(engine)
    with pytest.raises(wire.OutOfMemory) as raised:
        await turns.take(too_much)

    assert (raised.value.status, raised.value.code) == (503, "capacity_exceeded")
    assert await turns.take(lambda _: "well") == "well"
