"""Pictures to what the model reads, through llama.cpp's mtmd: LLaVA, MiniCPM-V and the rest.

mtmd cuts a picture into slices as the model wants them, on any thread; each slice is encoded once,
on the inference thread, and what came out is kept in the album.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable, Iterator

import numpy as np
from llama_cpp import llama_cpp, mtmd_cpp
from PIL import Image

from workers import files
from workers.llama.album import Album, Encoding, Item, Media, PictureId
from workers.llama.options import LlamaOptions

CANNOT_ENCODE = -4  # below what llama_decode returns
MIB = 1 << 20


class CannotRead(Exception):
    """The projector cannot make tokens of a picture."""


class _Chunks:
    """Owns the list that mtmd fills, until the last slice of it is encoded."""

    def __init__(self) -> None:
        self.pointer = mtmd_cpp.mtmd_input_chunks_init()

    def __del__(self) -> None:
        mtmd_cpp.mtmd_input_chunks_free(self.pointer)


class _Pixels:
    """One slice, ready to be encoded."""

    def __init__(self, pointer: int, owner: _Chunks) -> None:
        self.pointer = pointer
        self._owner = owner


class _Outline:
    """A slice without its pixels: what the decoder must know of its shape."""

    def __init__(self, chunk: int) -> None:
        self.pointer = mtmd_cpp.mtmd_input_chunk_get_placeholder(chunk)

    def __del__(self) -> None:
        mtmd_cpp.mtmd_input_chunk_free(self.pointer)


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
        self.header = files.read_gguf(str(options.mmproj))
        self.album = Album(options.image_cache_mib * MIB)
        self.encoded = 0  # slices, so far
        self._width: int = llama_cpp.llama_model_n_embd_inp(model)
        self._whole_cells = min(options.n_ubatch, options.n_batch)
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

    def mark(self, number: int) -> str:
        """Give what stands for a request's picture in the text of its prompt.

        Each has its own, as a chat template may tell messages in another order, or twice.
        """
        return f"{self.marker}{number};"

    def items(self, picture: PictureId, image: Image.Image) -> list[Item]:
        """Cut an RGB picture into slices, with the tokens around them. Any thread may.

        Raises CannotRead.
        """
        chunks, raw = _Chunks(), self.marker.encode()
        text = mtmd_cpp.mtmd_input_text(raw, len(raw), False, True)  # noqa: FBT003  # C fields
        bitmap = _bitmap(image)
        try:
            array = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if mtmd_cpp.mtmd_tokenize(self._context, chunks.pointer, ctypes.byref(text), array, 1):
                raise CannotRead
        finally:
            mtmd_cpp.mtmd_bitmap_free(bitmap)
        return list(self._flattened(chunks, picture))

    def decode(
        self, context: int, media: Media, *, position: int, sequence: int, batch: int
    ) -> tuple[int, int]:
        """Bring a picture into the KV cache, on the inference thread; encode it where needed.

        Returns what llama_decode does, or CANNOT_ENCODE, and the next position.
        """
        encoding = media.encoding if media.encoding is not None else self._encoded(media)
        if encoding is None:
            return CANNOT_ENCODE, position
        # the pixels go, the encoding stays: the answer may be put aside and computed again
        media.encoding, media.pixels = encoding, None
        outline, after = media.outline, llama_cpp.llama_pos()
        assert isinstance(outline, _Outline)  # noqa: S101  # for the type checker
        result = mtmd_cpp.mtmd_helper_decode_image_chunk(
            self._context,
            context,
            outline.pointer,
            encoding.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            position,
            sequence,
            batch,
            ctypes.byref(after),
            mtmd_cpp.mtmd_helper_post_decode_callback(),  # none
            None,
        )
        return result, after.value

    def _encoded(self, media: Media) -> Encoding | None:
        """Find the encoding of a slice, or make it; None where that fails."""
        found = self.album.encoding(media)
        if found is not None:
            return found
        pixels = media.pixels
        assert isinstance(pixels, _Pixels)  # noqa: S101  # what is not encoded has them
        if mtmd_cpp.mtmd_encode_chunk(self._context, pixels.pointer):
            return None
        self.encoded += 1
        floats = mtmd_cpp.mtmd_get_output_embd(self._context)
        made = np.ctypeslib.as_array(floats, (media.cells * self._width,)).copy()
        self.album.keep(media, made)
        return made

    def _flattened(self, chunks: _Chunks, picture: PictureId) -> Iterator[Item]:
        """Make tokens and media of mtmd's chunks. Raises CannotRead."""
        number = 0
        for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks.pointer)):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks.pointer, index)
            count = ctypes.c_size_t()
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
                found = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
                yield from found[: count.value]
                continue
            cells = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
            whole = mtmd_cpp.mtmd_decode_use_non_causal(self._context, chunk)
            if whole and cells > self._whole_cells:  # the engine would abort
                raise CannotRead
            yield Media(
                picture,
                number,
                cells,
                mtmd_cpp.mtmd_input_chunk_get_n_pos(chunk),
                _Outline(chunk),
                _Pixels(chunk, chunks),
            )
            number += 1


def _bitmap(picture: Image.Image) -> int:
    raw = picture.tobytes()
    data = (ctypes.c_uint8 * len(raw)).from_buffer_copy(raw)
    return int(mtmd_cpp.mtmd_bitmap_init(picture.width, picture.height, data))
