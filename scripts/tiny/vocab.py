"""The tokenizer of the chat models: SentencePiece style, with merges fitted to our sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from tiny.gguf import Gguf

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # llama.cpp's token types
_SPACE = "\u2581"
_PICTURE_MARKS = ("<image>", "</image>", "<slice>", "</slice>")  # MiniCPM-V asks for them


@dataclass(frozen=True, slots=True)
class Vocab:
    """Pieces with their scores (higher is merged first) and llama.cpp token types."""

    pieces: list[str]
    scores: list[float]
    types: list[int]

    @property
    def unprintable(self) -> list[int]:
        """The ids of all control, unknown and byte tokens."""
        return [index for index, kind in enumerate(self.types) if kind != _NORMAL]

    def store(self, file: Gguf, template: str) -> None:
        file.add("tokenizer.ggml.model", "llama")
        file.add("tokenizer.ggml.pre", "default")
        file.add("tokenizer.ggml.tokens", self.pieces)
        file.add("tokenizer.ggml.scores", self.scores)
        file.add("tokenizer.ggml.token_type", self.types)
        file.add("tokenizer.ggml.unknown_token_id", 0)
        file.add("tokenizer.ggml.bos_token_id", 1)
        file.add("tokenizer.ggml.eos_token_id", self.pieces.index("<|im_end|>"))
        file.add("tokenizer.ggml.add_bos_token", value=False)
        file.add("tokenizer.ggml.add_eos_token", value=False)
        file.add("tokenizer.ggml.add_space_prefix", value=False)
        file.add("tokenizer.chat_template", template)


def make_vocab(lines: list[str], merge_count: int) -> Vocab:
    """Bytes, ChatML and picture marks, printable ASCII, and the merges fitted to `lines`."""
    rows = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    rows += [(f"<0x{byte:02X}>", 0.0, _BYTE) for byte in range(256)]
    rows += [(t, 0.0, _CONTROL) for t in ("<|im_start|>", "<|im_end|>", *_PICTURE_MARKS)]
    rows += [(char, -1000.0, _NORMAL) for char in (_SPACE, *map(chr, range(33, 127)))]
    merges = enumerate(_merges(lines, merge_count))
    rows += [(piece, -float(rank), _NORMAL) for rank, piece in merges]
    return Vocab([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def _merges(lines: list[str], count: int) -> list[str]:
    """Fit byte-pair merges, the most frequent pair first; a word keeps the space before it."""
    words: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        first, *rest = line.split(" ")
        words.update([tuple(first), *(tuple(_SPACE + word) for word in rest)])
    found: list[str] = []
    for _ in range(count):
        seen: Counter[str] = Counter()
        for word, times in words.items():
            for a, b in pairwise(word):
                seen[a + b] += times
        best = max(seen, key=lambda piece: (seen[piece], piece), default="")
        if seen[best] < 2:
            break
        if best not in found:
            found.append(best)
        words = _applied(words, best)
    return found


def _applied(words: Counter[tuple[str, ...]], piece: str) -> Counter[tuple[str, ...]]:
    out: Counter[tuple[str, ...]] = Counter()
    for word, times in words.items():
        parts: list[str] = []
        for part in word:
            if parts and parts[-1] + part == piece and parts[-1] != piece:
                parts[-1] = piece
            else:
                parts.append(part)
        out[tuple(parts)] += times
    return out
