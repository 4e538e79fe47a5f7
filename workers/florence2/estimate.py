"""What a model will take of memory, from its options and the heads of its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers import files, memory
from workers.files import Header, types
from workers.florence2 import checks
from workers.florence2.options import Florence2Options
from workers.memory import MIB, Memory, Part, Place

ENGINE_BYTES = 440 * MIB  # measured: Python, torch and transformers, and what the load leaves
WHOLE_BYTES = {"base": 441 * MIB, "large": 1481 * MIB}  # in 16 bits; of what is still to fetch
VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# of the first stage's width, for each of its places: where the tower is widest
SIGHT_VALUES: Mapping[Place, int] = {"device": 12, "host": 24}  # measured; a CPU fuses less
FLOATS = ("F64", "F32", "F16", "BF16")
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


class _Shape(BaseModel):
    """A part of config.json; what is missing is as in the base model."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Widths = Annotated[tuple[int, ...], Field(min_length=1)]
ShapeT = TypeVar("ShapeT", bound=_Shape)


class _Text(_Shape):
    d_model: int = 768
    decoder_layers: int = 6
    max_position_embeddings: int = 1024


class _Vision(_Shape):
    embed_dim: Widths = (128,)
    patch_stride: Widths = (4,)


class _Config(_Shape):
    text_config: _Text = _Text()
    vision_config: _Vision = _Vision()


class _Size(_Shape):
    height: int = 768
    width: int = 768


class _ImageProcessor(_Shape):
    size: _Size = _Size()


class _Processor(_Shape):
    image_processor: _ImageProcessor = _ImageProcessor()


def estimate(options: Florence2Options) -> Memory:
    """Reckon what the worker will hold at work: one look, and as many answers as go together."""
    return memory.of(_parts(options))


def _parts(options: Florence2Options) -> Iterator[Part]:
    place: Place = "host" if options.device == "cpu" else "device"
    widest = SIGHT_VALUES["host" if _is_on_cpu(options) else "device"]
    value_bytes = VALUE_BYTES[_dtype(options)]
    directory = checks.directory_of(options.model)
    yield Part("engine and interpreter", "host", ENGINE_BYTES)
    if place == "device":
        yield memory.gpu_context()
    yield Part("weights", place, _weights_bytes(options, directory, value_bytes))
    config = _read(directory, "config.json", _Config)
    processor = _read(directory, "processor_config.json", _Processor)
    sight_values = widest * _first_stage_values(config, processor)
    yield Part("vision tower at work", place, sight_values * value_bytes)
    yield Part("tokens at work", place, _cache_values(config.text_config, options) * value_bytes)


def _dtype(options: Florence2Options) -> str:
    """Choose as the load does, which asks torch."""
    if options.dtype != "auto":
        return options.dtype
    if not _is_on_cpu(options):
        return "float16"
    return "bfloat16" if _is_fast_in_bfloat16() else "float32"


def _is_on_cpu(options: Florence2Options) -> bool:
    no_gpu = not any(path.exists() for path in GPU_FILES)
    return options.device == "cpu" or (options.device == "auto" and no_gpu)


def _is_fast_in_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\nflags")[2]
    except OSError:
        return False
    return not {"avx512_bf16", "amx_tile"}.isdisjoint(flags.partition("\n")[0].split())


def _weights_bytes(options: Florence2Options, directory: Path | None, value_bytes: int) -> int:
    if directory is None:  # still to fetch
        size = "large" if "large" in options.model.lower() else "base"
        return WHOLE_BYTES[size] // 2 * value_bytes
    return sum(_file_bytes(directory / name, value_bytes) for name in _names(directory))


def _names(directory: Path) -> list[str]:
    try:
        return checks.weight_files(directory)
    except (OSError, ValueError):
        return []


def _file_bytes(path: Path, value_bytes: int) -> int:
    try:
        header = files.read_safetensors(path)
    except files.BadFile:
        return memory.file_bytes(path)
    if header.unsized:
        return memory.file_bytes(path)
    return sum(_tensor_bytes(header, name, value_bytes) for name in header.shapes)


def _tensor_bytes(header: Header, name: str, value_bytes: int) -> int:
    kind, values = header.types[name], files.count(header.shapes[name])
    return values * value_bytes if kind in FLOATS else types.bytes_of(kind, values)


def _read(directory: Path | None, name: str, shape: type[ShapeT]) -> ShapeT:
    if directory is None:
        return shape()
    try:
        return shape.model_validate(json.loads((directory / name).read_bytes()))
    except (OSError, ValueError, ValidationError):
        return shape()


def _first_stage_values(config: _Config, processor: _Processor) -> int:
    vision, size = config.vision_config, processor.image_processor.size
    stride = max(vision.patch_stride[0], 1)
    return vision.embed_dim[0] * size.height * size.width // stride**2


def _cache_values(text: _Text, options: Florence2Options) -> int:
    """Count the keys and values of each beam of each question: what it said and what it sees."""
    said = min(options.max_new_tokens, text.max_position_embeddings)
    tokens = (said + text.max_position_embeddings) * options.num_beams * options.batch
    return 2 * text.decoder_layers * text.d_model * tokens
