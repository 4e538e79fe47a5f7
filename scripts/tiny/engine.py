"""The real engine as the recipes use it: its tokenizer, and what it makes of a picture.

Uses llama-cpp-python's ctypes layer; nothing of it leaves this module untyped.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import Llama, llama_cpp, mtmd_cpp
from PIL import Image

from tiny.optim import Array

Piece = list[int] | Array  # token ids, or the rows (n, width) that stand for a picture


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # no types upstream
def _no_log(_level: int, _text: bytes, _data: object) -> None:
    """Drop what the engine says; a reference must outlive the engine."""


def hush() -> None:
    """Keep the engine and its picture library from writing to stderr."""
    llama_cpp.llama_log_set(_no_log, None)
    mtmd_cpp.mtmd_log_set(_no_log, None)
    mtmd_cpp.mtmd_helper_log_set(_no_log, None)


class Tokenizer:
    def __init__(self, model: Path) -> None:
        hush()
        self._llama = Llama(str(model), vocab_only=True, verbose=False)

    def __call__(self, text: str) -> list[int]:
        ids = self._llama.tokenize(text.encode(), add_bos=False, special=True)
        return [int(token) for token in ids]


class Retina:
    """A text model's vocabulary with a projector: turns a prompt with a picture into pieces."""

    def __init__(self, model: Path, projector: Path) -> None:
        hush()
        self._llama = Llama(str(model), n_ctx=64, n_threads=1, verbose=False)
        wanted = mtmd_cpp.mtmd_context_params_default()
        wanted.use_gpu, wanted.n_threads, wanted.print_timings = False, 1, False
        wanted.warmup = False
        self._context = mtmd_cpp.mtmd_init_from_file(
            str(projector).encode(), self._llama.model, wanted
        )
        if not self._context:
            raise RuntimeError(f"the engine refused {projector}")

    def pieces(self, prompt: str, picture: Image.Image) -> list[Piece]:
        """Split a prompt with one media marker as the engine will feed it."""
        rgb = picture.convert("RGB").tobytes()
        buffer = (ctypes.c_uint8 * len(rgb)).from_buffer_copy(rgb)
        bitmap = mtmd_cpp.mtmd_bitmap_init(picture.width, picture.height, buffer)
        raw = prompt.encode()
        text = mtmd_cpp.mtmd_input_text()
        text.text, text.text_len = raw, len(raw)
        text.add_special, text.parse_special = False, True
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        try:
            code = mtmd_cpp.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1)
            if code:
                raise RuntimeError(f"mtmd_tokenize: {code}")
            count = mtmd_cpp.mtmd_input_chunks_size(chunks)
            return [self._piece(mtmd_cpp.mtmd_input_chunks_get(chunks, i)) for i in range(count)]
        finally:
            mtmd_cpp.mtmd_input_chunks_free(chunks)
            mtmd_cpp.mtmd_bitmap_free(bitmap)

    def _piece(self, chunk: Any) -> Piece:
        if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            size = ctypes.c_size_t()
            ids = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
            return [int(ids[i]) for i in range(size.value)]
        rows = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
        if mtmd_cpp.mtmd_encode_chunk(self._context, chunk):
            raise RuntimeError("mtmd_encode_chunk failed")
        shape = (rows * self._llama.n_embd(),)
        found = np.ctypeslib.as_array(mtmd_cpp.mtmd_get_output_embd(self._context), shape=shape)
        return np.array(found, "f4").reshape(rows, -1)
