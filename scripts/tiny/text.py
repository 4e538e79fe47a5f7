"""The chat model with its two projectors, and the model that never ends."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiny import corpus, vision
from tiny.engine import Piece, Retina, Tokenizer
from tiny.gguf import Gguf
from tiny.lm import Batch, LanguageModel, Shape
from tiny.optim import AdamW, Array, Weights, warm_cosine
from tiny.pictures import Shown, plain, random_scene, worn_scene
from tiny.vocab import Vocab, make_vocab

CONTEXT = 4096
_MERGE_COUNT = 330
_EYE_STEPS = 1000
_STEPS = 750
_BATCH = 16
_PICTURE_COUNT = 400  # for each projector
_SIDES_PX = (64, 96, 128, 192, 256, 400)
_SAY_S = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation: its pieces, and for each id whether it is ours to say."""

    ids: list[int]
    said: list[bool]
    pictures: list[tuple[int, Array]]  # from which position, and the rows


def make_chat(folder: Path) -> None:
    """Write chat.gguf, llava-mmproj.gguf and minicpmv-mmproj.gguf."""
    rng = np.random.default_rng(1)
    vocab = make_vocab(corpus.vocabulary_lines(), _MERGE_COUNT)
    shape = Shape(len(vocab.pieces))
    eye = vision.Eye(shape.width, vision.Painter(corpus.PLAIN, rng), rng)
    share = eye.train(_EYE_STEPS)
    print(f"  the eye reads {share:.1%} of its blemished training pictures", flush=True)
    eye.write_llava(folder / "llava-mmproj.gguf")
    eye.write_minicpmv(folder / "minicpmv-mmproj.gguf")
    with tempfile.TemporaryDirectory() as scratch:
        blank = Path(scratch) / "blank.gguf"
        model = LanguageModel(shape, longest=256, rng=rng)
        write_llama(blank, "blank", vocab, shape, model.weights)
        tokenizer = Tokenizer(blank)
        looks = [
            look
            for name in ("llava", "minicpmv")
            for look in _looks(Retina(blank, folder / f"{name}-mmproj.gguf"), tokenizer, rng)
        ]
    talks = [(tokenizer(question), tokenizer(answer)) for question, answer in corpus.pairs()]
    print(f"  {len(talks)} questions, {len(looks)} pictures", flush=True)
    _train(model, _Lessons(talks, looks, tokenizer, rng))
    write_llama(folder / "chat.gguf", "tiny chat", vocab, shape, model.weights)


def make_endless(folder: Path) -> None:
    """Write endless.gguf: random printable text that only a length limit or an abort ends."""
    rng = np.random.default_rng(2)
    vocab = make_vocab(corpus.vocabulary_lines(), _MERGE_COUNT)
    shape = Shape(len(vocab.pieces), width=256, blocks=4, head_count=8, hidden=512)
    weights = LanguageModel(shape, longest=2, rng=rng).weights
    for name, weight in weights.items():
        if weight.ndim > 1:
            weights[name] = (rng.standard_normal(weight.shape) * 0.3).astype("f4")
    weights["output.weight"] = weights["token_embd.weight"].copy()
    _silence(weights, vocab.unprintable, shape.blocks)
    write_llama(folder / "endless.gguf", "tiny endless", vocab, shape, weights)


def _silence(weights: Weights, ids: list[int], block_count: int) -> None:
    """Make sure that `ids` are never sampled.

    The last hidden dimension is kept a positive constant: no block writes to it. The silenced
    rows of the output look at nothing else, with a large negative weight.
    """
    weights["token_embd.weight"][:, -1] = 1.0
    for index in range(block_count):
        weights[f"blk.{index}.attn_output.weight"][-1] = 0
        weights[f"blk.{index}.ffn_down.weight"][-1] = 0
    output = weights["output.weight"]
    output[:, -1] = 0
    output[ids] = 0
    output[ids, -1] = -8000.0


def write_llama(path: Path, name: str, vocab: Vocab, shape: Shape, weights: Weights) -> None:
    """Write a model of arch llama; matrices in float16."""
    file = Gguf("llama")
    file.add("general.name", name)
    file.add("general.file_type", 1)
    numbers = {
        "context_length": CONTEXT,
        "embedding_length": shape.width,
        "block_count": shape.blocks,
        "feed_forward_length": shape.hidden,
        "attention.head_count": shape.head_count,
        "attention.head_count_kv": shape.head_count,
        "rope.dimension_count": shape.head,
        "vocab_size": shape.vocab,
    }
    for key, number in numbers.items():
        file.add("llama." + key, number)
    file.add("llama.attention.layer_norm_rms_epsilon", 1e-5)
    file.add("llama.rope.freq_base", 10000.0)
    vocab.store(file, corpus.TEMPLATE)
    for key, weight in weights.items():
        file.tensor(key, weight.astype("f2") if weight.ndim > 1 else weight)
    file.write(path)


@dataclass(frozen=True, slots=True)
class _Look:
    """A prompt with a picture, as the engine feeds it, and the answer."""

    pieces: list[Piece]
    answer: list[int]


def _looks(retina: Retina, tokenizer: Tokenizer, rng: np.random.Generator) -> list[_Look]:
    found = []
    for _ in range(_PICTURE_COUNT):
        shown = _shown(rng)
        question = corpus.SEEING[rng.integers(len(corpus.SEEING))]
        between = "\n" if rng.random() < 0.6 else ""
        parts = [corpus.MEDIA, question] if rng.random() < 0.7 else [question, corpus.MEDIA]
        prompt = corpus.turn(between.join(parts) if question else corpus.MEDIA)
        if rng.random() < 0.2:
            prompt = corpus.system() + prompt
        answer = corpus.seen(question, shown.colour, shown.shape)
        found.append(_Look(retina.pieces(prompt, shown.picture), tokenizer(answer)))
    return found


def _shown(rng: np.random.Generator) -> Shown:
    side = int(rng.choice(_SIDES_PX))
    if rng.random() < 0.65:
        return worn_scene(random_scene(rng), side, rng)
    name = list(corpus.PLAIN)[rng.integers(len(corpus.PLAIN))]
    height = side if rng.random() < 0.6 else int(side * rng.uniform(0.6, 1))
    return plain(name, corpus.PLAIN[name], (side, height), rng)


class _Lessons:
    """Draws conversations: about two in three of words, the others of pictures."""

    def __init__(
        self,
        talks: list[tuple[list[int], list[int]]],
        looks: list[_Look],
        tokenizer: Tokenizer,
        rng: np.random.Generator,
    ) -> None:
        self._talks, self._looks, self._rng = talks, looks, rng
        head, tail = corpus.turn("\0").split("\0")
        self._head, self._tail = tokenizer(head), tokenizer(tail)
        self._end = tokenizer("<|im_end|>\n")
        self._system = tokenizer(corpus.system())
        self._newline = tokenizer("\n")
        self._order: list[int] = []

    def draw(self, count: int, width: int) -> Batch:
        half = count * 5 // 8
        samples = [self._talk() for _ in range(half)]
        samples += [self._look() for _ in range(count - half)]
        longest = max(len(sample.ids) for sample in samples)
        ids = np.zeros((count, longest), np.int64)
        weight = np.zeros((count, longest), "f4")
        soft = np.zeros((count, longest, width), "f4")
        is_soft = np.zeros((count, longest), np.bool_)
        for row, sample in enumerate(samples):
            ids[row, : len(sample.ids)] = sample.ids
            weight[row, : len(sample.ids) - 1] = sample.said[1:]
            for start, rows in sample.pictures:
                place = slice(start, start + len(rows))
                soft[row, place] = rows + self._rng.normal(0, 0.06, rows.shape)
                is_soft[row, place] = True
        return Batch(ids, weight, soft, is_soft)

    def _next_talk(self) -> tuple[list[int], list[int]]:
        if not self._order:
            self._order = [int(i) for i in self._rng.permutation(len(self._talks))]
        return self._talks[self._order.pop()]

    def _talk(self) -> Sample:
        ids = list(self._system) if self._rng.random() < 0.25 else []
        said = [False] * len(ids)
        for _ in range(2 if self._rng.random() < 0.4 else 1):
            question, answer = self._next_talk()
            asked = self._head + question + self._tail
            ids += asked + answer + self._end
            said += [False] * len(asked) + [True] * (len(answer) + 1) + [False]
        return Sample(ids, said, [])

    def _look(self) -> Sample:
        look = self._looks[self._rng.integers(len(self._looks))]
        ids: list[int] = []
        pictures = []
        for piece in look.pieces:
            if isinstance(piece, list):
                ids += piece
            else:
                pictures.append((len(ids), piece))
                ids += [0] * len(piece)
        said = [False] * len(ids) + [True] * (len(look.answer) + 1) + [False]
        return Sample(ids + look.answer + self._end, said, pictures)


def _train(model: LanguageModel, lessons: _Lessons) -> None:
    optimiser = AdamW(model.weights)
    start = spoken = time.monotonic()
    for step in range(_STEPS):
        loss, gradients = model.gradients(lessons.draw(_BATCH, model.shape.width))
        optimiser.step(gradients, warm_cosine(step, _STEPS, 4e-3))
        now = time.monotonic()
        if now - spoken > _SAY_S or step == _STEPS - 1:
            spoken = now
            line = f"  step {step + 1} of {_STEPS}, loss {loss:.3f}, {now - start:.0f} s"
            print(line, flush=True)
