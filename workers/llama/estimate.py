"""What a model will take of memory, from its options and the heads of its files.

The engine's own plan (a load without data, by its `no_alloc`) says the same: the weights and the
cache to the byte, and the compute buffer of llama, Gemma 3 and Qwen 3's experts to one part in a
hundred; of other architectures the buffer is a guess of the right size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from workers import files, memory
from workers.files import Header, types
from workers.llama import checks
from workers.llama.memory import kv_heads, layer_cache_bytes, n_ctx, n_sequences
from workers.llama.options import LlamaOptions
from workers.memory import MIB, Memory, Part, Place

ENGINE_BYTES = 75 * MIB  # measured: Python, numpy and the library, before a model
WORD_BYTES = 250  # of tables, for each word of the vocabulary
SAMPLER_BYTES = 16  # of candidates and logits, for each word and sequence
INPUT = ("token_embd", "per_layer_token_embd", "token_types", "position_embd")
FLOAT_BYTES, HALF_BYTES = 4, 2
SIDE_WITHOUT_END_PX = 1472  # what mtmd makes ready for where pictures may have any size
_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Split:
    """Which layers the GPU holds: the last ones, the output first of all."""

    first_layer: int  # on the device, and all after it
    is_output: bool

    def place(self, tensor: str) -> Place:
        if tensor.startswith(INPUT):
            return "host"  # looked up, not multiplied: llama.cpp leaves it there
        layer = _LAYER.match(tensor)
        if layer:
            return self.of_layer(int(layer[1]))
        return "device" if self.is_output else "host"

    def of_layer(self, layer: int) -> Place:
        return "device" if layer >= self.first_layer and self.is_output else "host"


def estimate(options: LlamaOptions) -> Memory:
    """Reckon what the worker will hold. All of it is taken at load; requests need no more."""
    return memory.of(_parts(options))


def _parts(options: LlamaOptions) -> Iterator[Part]:
    yield Part("engine and interpreter", "host", ENGINE_BYTES)
    if options.n_gpu_layers:
        yield memory.gpu_context()
    all_of_it: Place = "device" if options.n_gpu_layers else "host"
    header = _understood(options.model)
    if header is None:
        yield Part("weights", all_of_it, sum(map(memory.file_bytes, _paths(options))))
    else:
        split = _split(options, header)
        yield from _weights(options, header, split)
        yield from _context(options, header, split)
    if options.mmproj is not None:
        yield from _projector(options.mmproj, all_of_it)
        yield Part("encoded pictures, kept", "host", options.image_cache_mib * MIB)


def _understood(path: str) -> Header | None:
    try:
        header = files.read_gguf(path)
    except files.BadFile:
        return None
    return None if header.unsized else header


def _paths(options: LlamaOptions) -> list[str]:
    return [options.model, *checks.other_parts(options.model)]


def _split(options: LlamaOptions, header: Header) -> Split:
    wanted = options.n_gpu_layers
    first = 0 if wanted < 0 else max(header.number("block_count") + 1 - wanted, 0)
    return Split(first, is_output=wanted != 0)


def _weights(options: LlamaOptions, header: Header, split: Split) -> Iterator[Part]:
    sizes: dict[Place, int] = {"device": 0, "host": 0}
    for path in _paths(options):
        part = header if path == options.model else _understood(path)
        if part is None:
            sizes["device" if split.is_output else "host"] += memory.file_bytes(path)
            continue
        for name, size_bytes in tensor_bytes(part).items():
            sizes[split.place(name)] += size_bytes
    for place, size_bytes in sizes.items():
        yield Part("weights", place, size_bytes)
    if split.is_output and "output.weight" not in header.shapes and not _is_encoder(header):
        table = tensor_bytes(header).get("token_embd.weight", 0)
        # the host's own serves for the output too, where there is no GPU
        yield Part("copy of the embeddings", "context", table)


def tensor_bytes(header: Header) -> dict[str, int]:
    """Give the bytes of each tensor as it lies in the file, and in llama.cpp's memory."""
    return {
        name: types.bytes_of(header.types[name], files.count(shape))
        for name, shape in header.shapes.items()
    }


def _context(options: LlamaOptions, header: Header, split: Split) -> Iterator[Part]:
    if not _is_encoder(header):
        layers = list(enumerate(layer_cache_bytes(options, header)))
        for place in ("device", "host"):
            held = sum(size for layer, size in layers if split.of_layer(layer) == place)
            yield Part("KV cache", place, held)
    yield Part(
        "compute buffers", "device" if split.is_output else "host", compute_bytes(options, header)
    )
    words = _words(header)
    yield Part("vocabulary", "host", words * WORD_BYTES)
    yield Part("samplers and logits", "host", words * SAMPLER_BYTES * n_sequences(options))


def _is_encoder(header: Header) -> bool:
    return header.architecture in checks.ENCODERS


def _words(header: Header) -> int:
    table = header.shape("token_embd.weight")
    return table[0] if table else 0


def compute_bytes(options: LlamaOptions, header: Header) -> int:
    """Reckon the graph's buffer: its largest stage, for a full micro-batch and a full cache."""
    cells = n_ctx(options, header)
    most = cells if options.embedding else min(options.n_ubatch, options.n_batch)
    width, heads = header.number("embedding_length"), header.number("attention.head_count")
    kv_width = header.number("attention.key_length") or (width // heads if heads else 0)
    kv_width *= max(kv_heads(header), default=0)
    attention = FLOAT_BYTES * (5 * width + 2 * kv_width)
    feed_forward = FLOAT_BYTES * (_inner_floats(header) + 4 * width)
    if options.flash_attn == "off":
        attention += FLOAT_BYTES * (heads + 1) * cells  # every score, and the mask
    else:
        masks = 2 if header.number("attention.sliding_window") else 1
        attention += masks * HALF_BYTES * cells
        feed_forward += masks * HALF_BYTES * cells
    logits = 0 if options.embedding else FLOAT_BYTES * (_words(header) + 2 * width)
    return min(most, cells) * max(feed_forward, attention, logits)


def _inner_floats(header: Header) -> int:
    """Count what a token takes in the feed-forward: a dense one, or the experts it goes to."""
    told = header.of_architecture("feed_forward_length")
    dense = told if isinstance(told, tuple) else (header.number("feed_forward_length"),)
    experts = header.number("expert_used_count")
    used = experts * header.number("expert_feed_forward_length")
    sent = 3 * used + experts * header.number("embedding_length")
    return int(max(3 * max(dense, default=0), sent))


def _projector(path: str, place: Place) -> Iterator[Part]:
    header = _understood(path)
    if header is None:
        yield Part("projector", place, memory.file_bytes(path))
        return
    yield Part("projector", place, sum(tensor_bytes(header).values()))
    yield Part("projector's compute buffers", place, _seeing_bytes(header))


def _seeing_bytes(header: Header) -> int:
    """Reckon what it takes to encode the largest picture, or slice of one, that is made."""
    side_px, patch_px = header.number("vision.image_size"), header.number("vision.patch_size")
    if str(header.keys.get("clip.projector_type", "")).startswith("qwen"):
        side_px = SIDE_WITHOUT_END_PX
    if not side_px or not patch_px:
        return 0
    places = (side_px // patch_px) ** 2
    width, inner = (
        header.number("vision.embedding_length"),
        header.number("vision.feed_forward_length"),
    )
    patches = HALF_BYTES * 3 * patch_px**2
    return places * (patches + FLOAT_BYTES * (3 * inner + 4 * width) + HALF_BYTES * places)
