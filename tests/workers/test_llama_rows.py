"""What the llama worker's sequences hold of pictures: whose, in which order, after a failure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llama_cpp import llama_cpp

from tests.workers.llama_loaded import eyes_of, field, loaded_model, prompt_of, vision_of
from workers.llama.album import Item, Media, PictureId, cells
from workers.llama.enginelog import ERROR
from workers.llama.generator import INTERRUPTED, NO_MEMORY, NO_ROOM, Generator
from workers.llama.loading import Loaded
from workers.llama.rows import Finish, Generation
from workers.llama.sampling import Sampler, Sampling
from workers.llama.vision import CANNOT_ENCODE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]

Make = Callable[..., Generation]


class Broken:
    """Stands in for a projector whose every picture ends with these results, one by one."""

    def __init__(self, *results: int) -> None:
        self.results = list(results)

    def decode(self, _context: int, _media: Media, **where: int) -> tuple[int, int]:
        return self.results.pop(0), where["position"]


class Noting:
    """Stands before a projector, and notes in which order pictures come to it."""

    def __init__(self, loaded: Loaded) -> None:
        self.seen: list[PictureId] = []
        self._loaded = loaded

    def decode(self, context: int, media: Media, **where: int) -> tuple[int, int]:
        self.seen.append(media.picture)
        return vision_of(self._loaded).decode(context, media, **where)


@pytest.fixture(scope="module")
def loaded(models: Path) -> Iterator[Loaded]:
    """Give the tiny vision model, in this process; tests take its steps themselves."""
    with loaded_model(models, models / "llava-mmproj.gguf") as found:
        yield found


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


def shown(loaded: Loaded, *colours: str, more: str = "") -> list[Item]:
    """Make a prompt with some words, a red picture or others, and more words."""
    fields = [field(colour) for colour in colours or ("red",)]
    marks = " ".join(vision_of(loaded).mark(number) for number in range(len(fields)))
    return prompt_of(eyes_of(loaded), f"What colour is this? {marks} Say.{more}", fields)


def pictures_in(items: list[Item]) -> list[PictureId]:
    return [item.picture for item in items if isinstance(item, Media)]


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
    generator, before = Generator(loaded), vision_of(loaded).encoded
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
    assert vision_of(loaded).encoded == before + 1


def test_who_came_first_is_first_to_be_looked_at(loaded: Loaded, make: Make) -> None:
    """Pictures of those who come later do not go before, whichever sequence they are given."""
    noting = Noting(loaded)
    generator = Generator(dataclasses.replace(loaded, vision=noting))  # type: ignore[arg-type]  # a stand-in
    words: list[Item] = [*loaded.vocabulary.prompt("Hello")]
    elder = make(shown(loaded, "red", "green", "blue", "pink"))
    younger = make(shown(loaded, "yellow", "brown"))
    for generation in (make(words, 1), elder, make(words, 40), make(words, 40)):
        generator.submit(generation)
    while generator.busy in (0, 4):
        generator._step()

    run(generator, younger, steps=200)

    assert noting.seen == pictures_in([*elder.prompt, *younger.prompt])


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
