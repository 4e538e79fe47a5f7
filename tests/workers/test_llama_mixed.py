"""Chats with pictures, mixed at random in one context: each says what it would say alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from llama_cpp import llama_cpp
from PIL import Image

from tests.workers import patched
from tests.workers.drawn import encoded
from tests.workers.llama_loaded import eyes_of, loaded_model, prompt_of, vision_of
from workers.llama.album import Album, Item
from workers.llama.eyes import Shown
from workers.llama.generator import Generator
from workers.llama.loading import Loaded
from workers.llama.rows import Finish, Generation
from workers.llama.sampling import Sampled, Sampler, Sampling

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]

WORDS = ("What colour?", "Describe.", "Hi")
PICTURES = [encoded(Image.effect_noise((60 + 7 * n, 56), 80 + n).convert("RGB")) for n in range(4)]
ALBUM_BYTES = (0, 4 * patched.CELLS * 128 * 4, 1 << 20)  # for none, for a few, for all
NODES = 150  # about two micro-batches

Part = str | tuple[int, bool]
"""Words, or which picture, and whether its detail is low."""


@dataclass
class Abort:
    """Be the engine's abort callback: say yes once, after so many nodes."""

    nodes: int = 0

    def __call__(self) -> bool:
        self.nodes -= 1
        return self.nodes == 0


@dataclass
class Chat:
    """One request, and what was said to it."""

    generation: Generation
    said: list[Sampled]
    ends: list[Finish] = field(default_factory=list)


@dataclass
class Bench:
    """A loaded model, whose steps the test takes itself."""

    loaded: Loaded
    abort: Abort

    def generator(self, album_bytes: int) -> Generator:
        """Give one that knows nothing of what was before."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.loaded.context), True)  # noqa: FBT003  # C
        vision_of(self.loaded).album = Album(album_bytes)
        return Generator(self.loaded)

    def chat(self, parts: tuple[Part, ...], max_tokens: int) -> Chat:
        said, ends = list[Sampled](), list[Finish]()
        sampler = Sampler(self.loaded.vocabulary, Sampling(top_logprobs=1))
        generation = Generation(
            self._prompt(parts),
            sampler,
            max_tokens,
            lambda sampled: said.append(sampled) or True,  # type: ignore[func-returns-value]  # None
            ends.append,
        )
        return Chat(generation, said, ends)

    def _prompt(self, parts: tuple[Part, ...]) -> list[Item]:
        text, shown = "", list[Shown]()
        for part in parts:
            if isinstance(part, str):
                text += part
            else:
                text += vision_of(self.loaded).mark(len(shown))
                shown.append(Shown.of(PICTURES[part[0]], "messages", is_low=part[1]))
        return prompt_of(eyes_of(self.loaded), f"{text} Say.", shown)


@pytest.fixture(scope="module")
def bench(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Load the tiny model with pictures of several cells, and a cache that is soon full."""
    projector = patched.write_projector(tmp_path_factory.mktemp("mixed") / "p.gguf")
    small = {"n_batch": 64, "n_ubatch": 32, "n_parallel": 3}
    exact = {"flash_attn": "off", "type_k": "f32", "type_v": "f32"}
    abort = Abort()
    with loaded_model(models, projector, abort, **small, **exact) as loaded:
        yield Bench(loaded, abort)


def some_parts(chance: random.Random) -> tuple[Part, ...]:
    def part() -> Part:
        return chance.choice([chance.choice(WORDS), (chance.randrange(4), chance.random() < 0.3)])

    return tuple(part() for _ in range(chance.randint(1, 5)))


def requests_of(chance: random.Random) -> list[tuple[tuple[Part, ...], int]]:
    """Draw requests that begin alike; each fits into the context, with its answer."""
    begins = [some_parts(chance) for _ in range(3)]
    drawn = [chance.choice(begins) + some_parts(chance)[: chance.randrange(4)] for _ in range(12)]
    return [(parts, chance.choice([1, 4, 30])) for parts in drawn]


def mixed(bench: Bench, generator: Generator, chats: list[Chat], chance: random.Random) -> None:
    """Let all be answered, with cancels, want of room and cut steps in between."""
    waiting = list(chats)
    while waiting or generator.busy or generator.waiting:
        if waiting and chance.random() < 0.4:
            generator.submit(waiting.pop().generation)
        if chance.random() < 0.05:
            generator.cancel(chance.choice(chats).generation)
        if chance.random() < 0.1:
            generator._make_room()
        bench.abort.nodes = chance.randrange(NODES) if chance.random() < 0.1 else 0
        if generator.busy or generator.waiting:
            generator._step()
    bench.abort.nodes = 0


@pytest.mark.parametrize("seed", range(4))
def test_each_chat_says_what_it_says_alone(bench: Bench, seed: int) -> None:
    """Whatever is found in the caches, forgotten, put aside or cut at any node of the graph."""
    chance = random.Random(seed)  # noqa: S311  # the same every time
    requests = requests_of(chance)
    alone = list[Chat]()
    for request in requests:
        generator, chat = bench.generator(0), bench.chat(*request)
        generator.submit(chat.generation)
        while not chat.ends:
            generator._step()
        alone.append(chat)

    generator = bench.generator(chance.choice(ALBUM_BYTES))
    together = [bench.chat(*request) for request in requests]
    mixed(bench, generator, together, chance)

    whole = [
        pair for pair in zip(together, alone, strict=True) if not pair[0].generation.cancelled
    ]
    for among_others, by_itself in whole:
        assert among_others.ends == by_itself.ends
        assert [s.token for s in among_others.said] == [s.token for s in by_itself.said]
        assert [s.logprob for s in among_others.said] == pytest.approx(
            [s.logprob for s in by_itself.said], abs=0.02
        )
    assert sum(chat.generation.cached_tokens for chat, _ in whole) > 0
    assert [len(chat.ends) for chat in together] == [1] * len(together)
