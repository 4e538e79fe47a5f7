"""An embedder and a reranker that know words but no meaning.

A text's embedding is the mean of fixed random vectors, one for each piece of a word: texts that
share words are near. The blocks between are nearly the identity, for the engine runs them all.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

from tiny.gguf import Gguf
from tiny.optim import Array

_WIDTH, _BLOCKS, _HIDDEN, _CONTEXT = 64, 2, 128, 512
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MEAN, _RANK = 1, 4  # llama.cpp's pooling types
_FRAGMENT_SHARE = 0.35  # of a whole word's length, for the vector of a letter
_WORDS = """
red green blue yellow black white orange purple circle square shape picture image colour color
capital city country land river planet animal cat dog cow duck lion owl bee sheep frog mouse horse
bird fish tree house car train station street road night day morning evening sun moon star sky sea
rain snow fire water stone paris berlin rome madrid tokyo oslo cairo athens london france germany
italy spain japan model server client proxy memory disk file cache token seat swap queue request
answer question word text number music song story joke poem book time year week hot cold big small
fast slow old new good bad happy sad make take give find know think see say go come run walk eat
drink sleep read write open close start stop load one two three four five six seven eight nine ten
""".split()  # noqa: SIM905  # a list of words to read, not to parse
_COMMON = """
a an the is are was were be of in on at to and or not it this that with for from by as what which
who where when how why i you he she we they do does did can will has have my your
""".split()  # noqa: SIM905


def make(folder: Path) -> None:
    """Write embed.gguf and rerank.gguf."""
    for name, pooling in (("embed", _MEAN), ("rerank", _RANK)):
        file = _file(f"tiny {name}", pooling)
        if pooling == _RANK:
            rng = np.random.default_rng(4)
            file.tensor("cls.weight", _random(rng, _WIDTH, _WIDTH))
            file.tensor("cls.bias", np.zeros(_WIDTH, "f4"))
            file.tensor("cls.output.weight", _random(rng, 1, _WIDTH))
            file.tensor("cls.output.bias", np.zeros(1, "f4"))
        file.write(folder / f"{name}.gguf")


def _file(name: str, pooling: int) -> Gguf:
    rng = np.random.default_rng(3)
    pieces, strengths = _vocabulary()
    file = Gguf("bert")
    file.add("general.name", name)
    numbers = {
        "context_length": _CONTEXT,
        "embedding_length": _WIDTH,
        "block_count": _BLOCKS,
        "feed_forward_length": _HIDDEN,
        "attention.head_count": 2,
        "pooling_type": pooling,
    }
    for key, number in numbers.items():
        file.add("bert." + key, number)
    file.add("bert.attention.layer_norm_epsilon", 1e-12)
    file.add("bert.attention.causal", value=False)
    _store_tokens(file, pieces)
    directions = rng.standard_normal((len(pieces), _WIDTH))
    directions -= directions.mean(axis=1, keepdims=True)
    # The norm after the embedding would make all lengths equal, so that "the" counts as much as
    # "circle". Two spare dimensions take up the rest of a weak piece's length; the last norm
    # drops them.
    strength = np.array(strengths)[:, None]
    directions[:, -2:] = 0
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    spare = np.zeros(_WIDTH)
    spare[-2:] = np.sqrt(0.5), -np.sqrt(0.5)
    vectors = strength * unit + np.sqrt(1 - strength**2) * spare
    file.tensor("token_embd.weight", (vectors * np.sqrt(_WIDTH)).astype("f4"))
    file.tensor("token_types.weight", np.zeros((2, _WIDTH), "f4"))
    file.tensor("position_embd.weight", _random(rng, _CONTEXT, _WIDTH) * np.float32(0.02))
    _store_norm(file, "token_embd_norm")
    for index in range(_BLOCKS):
        _store_block(file, f"blk.{index}.", rng)
    return file


def _vocabulary() -> tuple[list[str], list[float]]:
    """Give the pieces and how much each counts, from 0 to 1."""
    rows = [(piece, 0.0) for piece in _SPECIAL]
    for char in string.ascii_lowercase + string.digits:
        rows += [("\u2581" + char, _FRAGMENT_SHARE), (char, _FRAGMENT_SHARE)]
    for char in string.punctuation:
        rows += [("\u2581" + char, 0.05), (char, 0.05)]
    rows += [("\u2581" + word, 1.0) for word in _WORDS]
    rows += [("\u2581" + word, 0.15) for word in _COMMON if len(word) > 1]
    return [piece for piece, _ in rows], [strength for _, strength in rows]


def _store_tokens(file: Gguf, pieces: list[str]) -> None:
    kinds = [3, 2, 3, 3, 3] + [1] * (len(pieces) - len(_SPECIAL))
    file.add("tokenizer.ggml.model", "bert")
    file.add("tokenizer.ggml.pre", "default")
    file.add("tokenizer.ggml.token_type_count", 2)
    file.add("tokenizer.ggml.tokens", pieces)
    file.add("tokenizer.ggml.token_type", kinds)
    file.add("tokenizer.ggml.scores", [0.0] * len(pieces))
    # "seperator" is the engine's spelling
    names = {"padding": 0, "unknown": 1, "bos": 2, "cls": 2, "seperator": 3, "mask": 4}
    for name, token in names.items():
        file.add(f"tokenizer.ggml.{name}_token_id", token)


def _store_block(file: Gguf, name: str, rng: np.random.Generator) -> None:
    faint = np.float32(0.02)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        file.tensor(f"{name}{part}.weight", _random(rng, _WIDTH, _WIDTH) * faint)
        file.tensor(f"{name}{part}.bias", np.zeros(_WIDTH, "f4"))
    file.tensor(f"{name}ffn_up.weight", _random(rng, _HIDDEN, _WIDTH) * faint)
    file.tensor(f"{name}ffn_up.bias", np.zeros(_HIDDEN, "f4"))
    file.tensor(f"{name}ffn_down.weight", _random(rng, _WIDTH, _HIDDEN) * faint)
    file.tensor(f"{name}ffn_down.bias", np.zeros(_WIDTH, "f4"))
    _store_norm(file, name + "attn_output_norm")
    _store_norm(file, name + "layer_output_norm", is_last=name == f"blk.{_BLOCKS - 1}.")


def _store_norm(file: Gguf, name: str, *, is_last: bool = False) -> None:
    gain = np.ones(_WIDTH, "f4")
    gain[-2:] = 0 if is_last else 1
    file.tensor(f"{name}.weight", gain)
    file.tensor(f"{name}.bias", np.zeros(_WIDTH, "f4"))


def _random(rng: np.random.Generator, rows: int, columns: int) -> Array:
    drawn: Array = (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype("f4")
    return drawn
