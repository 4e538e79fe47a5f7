"""The engine of Florence-2 and the turns on it, in this process: what a socket cannot show."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.workers.florence2_pictures import Shown
from workers import serve, wire
from workers.florence2 import answers, tasks
from workers.florence2.options import Florence2Options

if TYPE_CHECKING:
    from workers.florence2.engine import Engine
    from workers.florence2.rows import Look

pytestmark = [pytest.mark.engine, pytest.mark.timeout(90)]
CAPTION = tasks.Question(tasks.CAPTION)
PARAGRAPH = tasks.Question(tasks.MORE_DETAILED_CAPTION)


def load(directory: Path, **more: object) -> Engine:
    # torch takes seconds to import; tests of other workers need not wait for it
    from workers.florence2 import loading  # noqa: PLC0415

    options = {"model": str(directory), "device": "cpu", "n_threads": 1, "dtype": "float32"}
    return loading.load(Florence2Options.model_validate(options | more), lambda _: None)


@pytest.fixture(scope="module")
def engine(models: Path) -> Engine:
    return load(models / "florence2")


def look_at(engine: Engine, shown: Shown, *questions: tasks.Question, **more: object) -> Look:
    from workers.florence2.rows import Look  # noqa: PLC0415  # as above

    return Look.at(engine.prepare(shown.draw()), questions, **more)


def answered(engine: Engine, looks: Sequence[Look]) -> list[list[answers.Answer]]:
    """Answer all that is asked of all pictures together."""
    asks = [ask for look in looks for ask in engine.look(look)]
    for group in engine.together(asks):
        engine.answer(group)
    return [[answer.result(0) for answer in look.answers] for look in looks]


@pytest.mark.parametrize("size", [(320, 320), (900, 301), (5, 700)])
def test_a_picture_is_prepared_as_the_processor_does(
    engine: Engine, size: tuple[int, int]
) -> None:
    """To the bit, with fewer copies of it."""
    picture = Shown().draw(*size)

    [whole] = engine._processor.image_processor(picture, return_tensors="pt")["pixel_values"]

    assert engine.prepare(picture)[0].equal(whole)


def test_a_client_that_left_stops_the_look(engine: Engine) -> None:
    """The encoder stops at its next layer, and the engine works on for others."""
    from workers.florence2.rows import Left  # noqa: PLC0415  # as above

    look = look_at(engine, Shown(), CAPTION)
    look.left.set()
    with pytest.raises(Left):
        engine.look(look)

    [[answer]] = answered(engine, [look_at(engine, Shown(), CAPTION)])
    assert engine.text_of(answer) == "a red circle"


def test_a_client_that_leaves_stops_the_answer(engine: Engine) -> None:
    """No token is made after the one at which the client left."""
    from workers.florence2.rows import Left  # noqa: PLC0415  # as above

    pieces = list[str]()

    def leave_at(piece: str) -> None:
        pieces.append(piece)
        look.left.set()

    look = look_at(engine, Shown(), CAPTION, on_text=leave_at)
    with pytest.raises(Left):
        answered(engine, [look])

    assert pieces == ["a"]


def test_one_that_leaves_takes_nothing_from_the_others(engine: Engine) -> None:
    """Of two that are answered together, who stays gets the whole answer."""
    from workers.florence2.rows import Left  # noqa: PLC0415  # as above

    gone = look_at(engine, Shown("blue"), PARAGRAPH, on_text=lambda _: gone.left.set())
    stays = look_at(engine, Shown("green", "square"), PARAGRAPH)
    engine.answer([ask for look in (gone, stays) for ask in engine.look(look)])

    assert isinstance(gone.answers[0].exception(0), Left)
    text = engine.text_of(stays.answers[0].result(0))
    assert text == "The picture shows a green square in the top left. The rest is white."


def test_answers_together_are_those_one_by_one(engine: Engine) -> None:
    """Every task of three pictures: token by token, wherever each answer ends."""
    pictures = [Shown("red", "circle"), Shown("blue", "square", "bottom right"), Shown("green")]
    words = {tasks.Takes.WORDS: "a red circle", tasks.Takes.REGION: "<loc_1><loc_2><loc_9><loc_9>"}
    questions = [tasks.Question(task, words.get(task.takes, "")) for task in tasks.TASKS.values()]

    together = answered(engine, [look_at(engine, picture, *questions) for picture in pictures])
    for picture, among_others in zip(pictures, together, strict=True):
        for question, answer in zip(questions, among_others, strict=True):
            [[alone]] = answered(engine, [look_at(engine, picture, question)])

            assert answer.ids == alone.ids, question
            assert answer.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
            assert answer.ended == alone.ended


def test_a_short_answer_does_not_wait_for_a_long_one(engine: Engine) -> None:
    """Of two answers under way, each is told when it ends itself."""
    ended_before = list[bool]()

    def note(_: str) -> None:
        ended_before.append(short.answers[0].done())

    long = look_at(engine, Shown(), PARAGRAPH, on_text=note)
    short = look_at(engine, Shown(), CAPTION)
    answered(engine, [long, short])

    assert ended_before[0] is False
    assert ended_before[-1] is True


def test_each_answer_has_its_own_limit(engine: Engine) -> None:
    """A cut answer says so, and cuts nobody else's."""
    cut, whole = (
        look_at(engine, Shown(), PARAGRAPH, max_tokens=3),
        look_at(engine, Shown(), CAPTION),
    )

    [[first], [second]] = answered(engine, [cut, whole])

    assert (len(first.ids), first.ended) == (3, False)
    assert (engine.text_of(second), second.ended) == ("a red circle", True)


def test_beams_give_the_same_caption_and_no_pieces(models: Path) -> None:
    """A search by beams is for captions only: boxes stay greedy and have confidences."""
    searching = load(models / "florence2", num_beams=3, dtype="bfloat16")
    pieces = list[str]()
    objects = tasks.Question(tasks.OBJECTS)
    looks = [
        look_at(searching, Shown(), CAPTION, objects, on_text=pieces.append),
        look_at(searching, Shown("blue", "square"), CAPTION),
    ]

    [[caption, boxes], [other]] = answered(searching, looks)

    assert searching.text_of(caption) == "a red circle"
    assert searching.text_of(other) == "a blue square"
    assert answers.confidence(caption) is None
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


class Gate:
    """Stands before the encoder: counts the pictures, and lets them pass once it is open."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.passed = 0
        self._encode = engine._model.get_image_features
        monkeypatch.setattr(engine._model, "get_image_features", self._pass)

    def _pass(self, pixels: object) -> object:
        self.open.wait()
        self.passed += 1
        return self._encode(pixels)


async def test_a_picture_that_is_left_is_never_looked_at(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns go in order, and a place in the queue is given back."""
    from workers.florence2.turns import Turns  # noqa: PLC0415  # as above

    gate = Gate(engine, monkeypatch)
    turns, pixels = Turns(engine, batch=1), engine.prepare(Shown().draw())
    with turns.asked(pixels, [CAPTION]) as [first]:
        with turns.asked(pixels, [CAPTION]):
            pass
        with turns.asked(pixels, [CAPTION]) as [last]:
            gate.open.set()
            await asyncio.gather(first, last)

    assert gate.passed == 2


def test_who_leaves_takes_nothing_from_a_search(models: Path) -> None:
    """A search by beams and greedy answers share a turn, and not each other's end."""
    from workers.florence2.rows import Left  # noqa: PLC0415  # as above

    searching = load(models / "florence2", num_beams=3)
    gone = look_at(searching, Shown(), tasks.Question(tasks.OCR))
    stays = look_at(searching, Shown(), CAPTION)
    asks = [ask for look in (gone, stays) for ask in searching.look(look)]
    gone.left.set()
    greedy, search = searching.together(asks)
    with pytest.raises(Left):
        searching.answer(greedy)

    searching.answer(search)

    assert searching.text_of(stays.answers[0].result(0)) == "a red circle"


async def test_who_comes_meanwhile_is_answered_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait share a turn, as many as the options allow."""
    from workers.florence2.turns import Turns  # noqa: PLC0415  # as above

    gate, sizes, answer = Gate(engine, monkeypatch), list[int](), engine.answer
    monkeypatch.setattr(engine, "answer", lambda asks: sizes.append(len(asks)) or answer(asks))
    turns, pixels = Turns(engine, batch=2), engine.prepare(Shown().draw())
    with contextlib.ExitStack() as asked:
        futures = [asked.enter_context(turns.asked(pixels, [CAPTION]))[0] for _ in range(5)]
        gate.open.set()
        await asyncio.gather(*futures)

    assert (gate.passed, sizes) == (5, [2, 2, 1])


@pytest.mark.parametrize("where", ["gpu", "cpu"])
async def test_no_memory_is_an_answer_and_not_an_end(
    engine: Engine, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture too many gets 503, and the next work its result. On a CPU torch has no class."""
    import torch  # noqa: PLC0415  # as above

    from workers.florence2.turns import Turns  # noqa: PLC0415  # as above

    def too_much(_: object) -> None:
        if where == "cpu":
            torch.empty(1 << 50)
        raise torch.OutOfMemoryError

    turns, pixels = Turns(engine, batch=4), engine.prepare(Shown().draw())
    with monkeypatch.context() as scarce:
        scarce.setattr(engine._model, "get_image_features", too_much)
        with pytest.raises(wire.OutOfMemory) as raised:
            await turns.answers(pixels, [CAPTION])

    assert (raised.value.status, raised.value.code) == (503, "capacity_exceeded")
    [answer] = await turns.answers(pixels, [CAPTION])
    assert engine.text_of(answer) == "a red circle"


async def test_what_has_no_room_together_is_answered_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be answered with others costs nobody the answer."""
    import torch  # noqa: PLC0415  # as above

    from workers.florence2.turns import Turns  # noqa: PLC0415  # as above

    generate = engine._model.generate

    def alone(**what: torch.Tensor) -> object:
        if len(what["input_ids"]) > 1:
            raise torch.OutOfMemoryError
        return generate(**what)

    monkeypatch.setattr(engine._model, "generate", alone)
    given = await Turns(engine, batch=4).answers(
        engine.prepare(Shown().draw()), [CAPTION, tasks.Question(tasks.OCR)]
    )

    assert [engine.text_of(answer) for answer in given] == ["a red circle", "RED CIRCLE"]


async def test_a_failure_is_nobody_elses(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that the engine cannot answer fails alone, whoever is answered beside it."""
    from workers.florence2.turns import Turns  # noqa: PLC0415  # as above

    generate, limit = engine._model.generate, 7

    def fragile(**what: Any) -> object:
        if what["generation_config"].max_new_tokens == limit or len(what["input_ids"]) > 1:
            raise ValueError("no such tokens")
        return generate(**what)

    monkeypatch.setattr(engine._model, "generate", fragile)
    turns, pixels = Turns(engine, batch=2), engine.prepare(Shown().draw())
    with (
        turns.asked(pixels, [CAPTION], max_tokens=limit) as [bad],
        turns.asked(pixels, [CAPTION]) as [good],
    ):
        answers_ = await asyncio.gather(bad, good, return_exceptions=True)

    assert isinstance(answers_[0], ValueError)
    assert engine.text_of(answers_[1]) == "a red circle"  # type: ignore[arg-type]  # no error
