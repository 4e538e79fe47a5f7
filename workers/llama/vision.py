"""Pictures to what the model reads, through llama.cpp's mtmd: LLaVA, MiniCPM-V and the rest."""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llama_cpp import llama_cpp, mtmd_cpp
from PIL import Image

from workers.llama.options import LlamaOptions
from workers.llama.vocabulary import Vocabulary

CANNOT_ENCODE = -4  # below what llama_decode returns


class CannotRead(Exception):
    """The projector cannot make tokens of these pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """One picture, or a slice of one, prepared for its place in a prompt."""

    chunk: int
    cells: int  # of KV cache
    owner: _Chunks  # frees the chunk


Item = int | Media
"""What a prompt is made of: tokens, and pictures between them."""


class _Chunks:
    """Owns the list that mtmd fills, until the last Media of it is gone."""

    def __init__(self) -> None:
        self.pointer = mtmd_cpp.mtmd_input_chunks_init()

    def __del__(self) -> None:
        mtmd_cpp.mtmd_input_chunks_free(self.pointer)


class Vision:
    """A projector beside its language model."""

    def __init__(
        self,
        model: int,
        options: LlamaOptions,
        progress: Callable[[float], bool],
    ) -> None:
        """Load the projector. Raises CannotRead; the reason is in the engine's log."""
        # random, so that no text of a user's can stand for a picture
        self.marker = f"<__media_{secrets.token_hex(16)}__>"
        self._progress = mtmd_cpp.mtmd_progress_callback(lambda part, _: progress(part))
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = options.n_gpu_layers != 0
        params.print_timings = False
        params.media_marker = self.marker.encode()
        params.progress_callback = self._progress
        threads = options.n_threads_batch or options.n_threads
        if threads is not None:
            params.n_threads = threads
        path = str(options.mmproj).encode()
        self._context = mtmd_cpp.mtmd_init_from_file(path, model, params)
        if not self._context or not mtmd_cpp.mtmd_support_vision(self._context):
            raise CannotRead

    def prompt(
        self, vocabulary: Vocabulary, text: str, pictures: Sequence[Image.Image]
    ) -> list[Item]:
        """Tokenise a text with one marker for each picture. Any thread may. Raises CannotRead."""
        bitmaps = [_bitmap(picture) for picture in pictures]
        try:
            raw = text.encode(errors="replace")
            given = mtmd_cpp.mtmd_input_text(raw, len(raw), vocabulary.needs_bos(text), True)  # noqa: FBT003  # C fields
            chunks = _Chunks()
            array = (mtmd_cpp.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
            if mtmd_cpp.mtmd_tokenize(
                self._context, chunks.pointer, ctypes.byref(given), array, len(bitmaps)
            ):
                raise CannotRead
        finally:
            for bitmap in bitmaps:
                mtmd_cpp.mtmd_bitmap_free(bitmap)
        return _items(chunks)

    def decode(
        self, context: int, media: Media, *, position: int, sequence: int, batch: int
    ) -> tuple[int, int]:
        """Encode a picture into the KV cache, on the inference thread.

        Returns what llama_decode does, or CANNOT_ENCODE, and the next position.
        """
        # in two steps, as in one the encoder's 1 for a failure would be the cache's for no room
        if mtmd_cpp.mtmd_encode_chunk(self._context, media.chunk):
            return CANNOT_ENCODE, position
        after = llama_cpp.llama_pos()
        result = mtmd_cpp.mtmd_helper_decode_image_chunk(
            self._context,
            context,
            media.chunk,
            mtmd_cpp.mtmd_get_output_embd(self._context),
            position,
            sequence,
            batch,
            ctypes.byref(after),
            mtmd_cpp.mtmd_helper_post_decode_callback(),  # none
            None,
        )
        return result, after.value


def _bitmap(picture: Image.Image) -> int:
    raw = picture.tobytes()
    data = (ctypes.c_uint8 * len(raw)).from_buffer_copy(raw)
    return int(mtmd_cpp.mtmd_bitmap_init(picture.width, picture.height, data))


def _items(chunks: _Chunks) -> list[Item]:
    """Flatten mtmd's chunks into tokens and media."""
    items: list[Item] = []
    for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks.pointer)):
        chunk = mtmd_cpp.mtmd_input_chunks_get(chunks.pointer, index)
        count = ctypes.c_size_t()
        if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            found = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            items += found[: count.value]
        else:
            cells = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
            items.append(Media(chunk, cells, chunks))
    return items
