"""Text to tokens and back. Only reads the model, so any thread may use it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from llama_cpp import llama_cpp

FIRST_PIECE_BYTES = 64  # most pieces are shorter; a longer one is asked for again
MOST_BYTES_PER_TOKEN = 512  # no common vocabulary has a longer piece (runs of spaces)


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, model: int) -> None:
        self.pointer = llama_cpp.llama_model_get_vocab(model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self.pointer)
        self.bos: int = llama_cpp.llama_vocab_bos(self.pointer)
        self.eos: int = llama_cpp.llama_vocab_eos(self.pointer)
        self.sep: int = llama_cpp.llama_vocab_sep(self.pointer)
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self.pointer)) and self.bos >= 0
        self.adds_eos = bool(llama_cpp.llama_vocab_get_add_eos(self.pointer)) and self.eos >= 0
        self.adds_sep = bool(llama_cpp.llama_vocab_get_add_sep(self.pointer)) and self.sep >= 0
        self.bos_text = self.name_of(self.bos)
        self.eos_text = self.name_of(self.eos)

    def tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokenise.

        `add_special`: BOS and the like as the model wants. `parse_special`: the name of a
        control token is that token, as in a rendered chat template.
        """
        raw = text.encode(errors="replace")
        room = len(raw) + 2
        while True:
            found = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(
                self.pointer, raw, len(raw), found, room, add_special, parse_special
            )
            if count >= 0:
                return list(found[:count])
            room = -count

    def prompt(self, text: str) -> list[int]:
        """Tokenise what the model shall go on from: one BOS if it wants one, and never an EOS."""
        bos = [self.bos] if self.needs_bos(text) else []
        return bos + self.tokens(text, add_special=False, parse_special=True)

    def needs_bos(self, text: str) -> bool:
        """Say whether the text lacks the BOS that its template may have written already."""
        return self.adds_bos and not (self.bos_text and text.startswith(self.bos_text))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Give a token's bytes, which may be a part of a character.

        A control token has none unless `special`.
        """
        room = FIRST_PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self.pointer, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def text(self, tokens: Sequence[int], *, special: bool = True) -> str:
        """Detokenise; bytes that are no text become U+FFFD."""
        given = (llama_cpp.llama_token * len(tokens))(*tokens)
        room = FIRST_PIECE_BYTES * (len(tokens) + 1)
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_detokenize(
                *(self.pointer, given, len(tokens), buffer, room),
                False,  # noqa: FBT003  # C: keep BOS and EOS
                special,
            )
            if count >= 0:
                return buffer.raw[:count].decode(errors="replace")
            room = -count

    def name_of(self, token: int) -> str:
        """Give what a template writes for a control token, such as `<s>`; "" for none."""
        if token < 0:
            return ""
        return bytes(llama_cpp.llama_vocab_get_text(self.pointer, token)).decode(errors="replace")

    def single_token(self, text: str) -> int | None:
        """Give the token that is the whole text, if there is one."""
        found = self.tokens(text, add_special=False, parse_special=True)
        return found[0] if len(found) == 1 else None

    def is_end(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self.pointer, token))

    def warm_up_token(self) -> int:
        return next((token for token in (self.bos, self.eos) if token >= 0), 0)
