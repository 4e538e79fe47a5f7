"""What the llama worker's sequences hold of pictures, and what a failure of one does."""

from __future__ import annotations

import atexit
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llama_cpp import _utils, llama_cpp
from PIL import Image

from tests.workers.drawn import encoded
from workers.llama.album import Item, Media, cells
from workers.llama.enginelog import ERROR, EngineLog
from workers.llama.eyes import Eyes, Shown
from workers.llama.generator import INTERRUPTED, NO_MEMORY, NO_ROOM, Generator
from workers.llama.loading import Loaded, Loader
from workers.llama.options import LlamaOptions
from workers.llama.rows import Finish, Generation
from workers.llama.sampling import Sampler, Sampling
from workers.llama.vision import CANNOT_ENCODE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]

# the package opens these when it is imported, and leaves them to the interpreter's last complaint
atexit.register(_utils.outnull_file.close)
atexit.register(_utils.errnull_file.close)

Make = Callable[..., Generation]


class Broken:
    """Stands in for a projector whose every picture ends with these results, one by one."""

    def __init__(self, *results: int) -> None:
        self.results = list(results)

    def decode(self, _context: int, _media: Media, **where: int) -> tuple[int, int]:
        return self.results.pop(0), where["position"]


@pytest.fixture(scope="module")
def loaded(models: Path) -> Iterator[Loaded]:
    """Give the tiny vision model, in this process; tests take its steps themselves."""
    options = LlamaOptions(
        model=str(models / "chat.gguf"),
        mmproj=str(models / "llava-mmproj.gguf"),
        n_ctx=256,
        n_threads=1,
    )
    log = EngineLog()
    log.install()
    yield Loader(options, lambda _: None, log).load(lambda: False)
    quiet = llama_cpp.llama_log_callback()
    llama_cpp.llama_log_set(quiet, None)


@pytest.fixture
def ends() -> list[Finish]:
    return []


@pytest.fixture
def make(loaded: Loaded, ends: list[Finish]) -> Make:
    def generation(prompt: list[Item], max_tokens: int = 2) -> Generation:
        sampler = Sampler(loaded.vocabulary, Sampling())
        return Generation(prompt, sampler, max_tokens, lambda _: True, ends.append)

    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(loaded.context), True)  # noqa: FBT003  # C
    return generation


def shown(loaded: Loaded, colour: str = "red", more: str = "") -> list[Item]:
    """Make a prompt with some words, a picture and more words."""
    assert loaded.vision is not None
    eyes = Eyes(loaded.vision, loaded.vocabulary, loaded.options, loaded.n_ctx)
    picture = Shown(encoded(Image.new("RGB", (64, 64), colour)), "messages")
    text = f"What colour is this? {loaded.vision.marker} Say.{more}"
    return eyes.prompt(text, [picture])


def run(generator: Generator, *generations: Generation, steps: int = 50) -> None:
    """Take steps until all have ended; fails after so many."""
    for generation in generations:
        generator.submit(generation)
    for _ in range(steps):
        generator._step()
        if not (generator.busy or generator.waiting):
            return
    pytest.fail("the generator goes on and on")


def test_a_conversation_goes_on_from_its_picture(
    loaded: Loaded, make: Make, ends: list[Finish]
) -> None:
    """What begins with the same picture is found in the cache; another one only up to there."""
    generator = Generator(loaded)
    prompt = shown(loaded)
    before = next(n for n, item in enumerate(prompt) if isinstance(item, Media))
    run(generator, make(prompt))

    longer = make(shown(loaded, more=" Please."))
    run(generator, longer)
    other = make(shown(loaded, "blue"))
    run(generator, other)

    assert ends == ["length"] * 3
    assert longer.cached_tokens >= cells(prompt) - 1
    assert other.cached_tokens == before > 0


def test_idle_rows_hold_no_pixels(loaded: Loaded, make: Make) -> None:
    """When an answer has ended, what is left of its pictures is what tells them apart."""
    generator = Generator(loaded)

    run(generator, make(shown(loaded, "green")))

    held = [item for row in generator._rows for item in row.items if isinstance(item, Media)]
    assert held
    assert {(media.pixels, media.encoding) for media in held} == {(None, None)}


def test_an_answer_put_aside_sees_its_picture_again(
    loaded: Loaded, make: Make, ends: list[Finish]
) -> None:
    """It is computed anew from the encoding: the picture is encoded once."""
    assert loaded.vision is not None
    generator, before = Generator(loaded), loaded.vision.encoded
    elder, younger = make([*loaded.vocabulary.prompt("Hello")], 40), make(shown(loaded, "purple"))
    generator.submit(elder)
    generator.submit(younger)
    generator._step()

    assert generator._make_room()
    run(generator, steps=200)

    assert generator.counts["put_aside"] == 1
    assert len(ends) == 2
    assert "error" not in ends
    assert len(younger.generated) > 0
    assert loaded.vision.encoded == before + 1


@pytest.mark.parametrize("result", [CANNOT_ENCODE, -1, -3, 7])
def test_broken_picture_fails_its_own_request(
    loaded: Loaded, make: Make, ends: list[Finish], result: int
) -> None:
    """What is not for want of room costs nobody else anything: not even an idle sequence."""
    words: list[Item] = [*loaded.vocabulary.prompt("What does the cow say?")]
    generator = Generator(dataclasses.replace(loaded, vision=Broken(result)))  # type: ignore[arg-type]  # a stand-in
    run(generator, make(words))

    run(generator, make(shown(loaded)), other := make(words))

    assert ends == ["length", "error", "length"]
    assert generator.counts["put_aside"] == 0
    assert other.cached_tokens == len(words) - 1


@pytest.mark.parametrize("result", [NO_MEMORY, CANNOT_ENCODE])
def test_want_of_memory_is_told_from_other_failures(
    loaded: Loaded, make: Make, ends: list[Finish], result: int
) -> None:
    """The engine's result says it; a projector's does not, and then the log has the last word."""
    generator = Generator(dataclasses.replace(loaded, vision=Broken(result, CANNOT_ENCODE)))  # type: ignore[arg-type]  # a stand-in
    if result == CANNOT_ENCODE:
        loaded.log._take(ERROR, b"clip: failed to allocate buffer of size 99\n", None)

    run(generator, make(shown(loaded)))
    run(generator, make(shown(loaded)))

    assert ends == ["out_of_memory", "error"]


def test_picture_without_room_is_tried_again(
    loaded: Loaded, make: Make, ends: list[Finish]
) -> None:
    """An idle sequence makes way for a picture; with nothing left to make way, it is an error."""
    generator = Generator(
        dataclasses.replace(loaded, vision=Broken(INTERRUPTED, NO_ROOM, NO_ROOM))  # type: ignore[arg-type]  # a stand-in
    )
    words: list[Item] = [*loaded.vocabulary.prompt("What does the cow say?")]
    run(generator, make(words))

    run(generator, make(shown(loaded)))

    assert ends == ["length", "error"]
    assert [row.id for row in generator._rows if row.items[: len(words)] == words] == []
