"""The heads of files of weights: what they say, and what cannot be a model."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workers import sd_files
from workers import files
from workers.files import BadFile

PAGE = b"\n<!DOCTYPE html><html><body>404</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
TEXT = b"just some text that is no model at all"
Read = Callable[[Path], files.Header]
READS: list[Read] = [files.read, files.read_gguf, files.read_safetensors]


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def write_gguf(path: Path, *, keys: bytes = b"", key_count: int = 0, kind: int = 0) -> Path:
    """Write a file with one tensor of 2 x 3 numbers, 24 bytes where they are float32."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, key_count) + keys
    head += string("a.weight") + struct.pack("<IQQIQ", 2, 3, 2, kind, 0)
    path.write_bytes(head + bytes(-len(head) % 32 + 24))
    return path


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "is empty"),
        (PAGE, "web page"),
        (POINTER, "git lfs pull"),
        (TEXT, "(not a GGUF|neither safetensors nor GGUF|not a safetensors) *"),
    ],
    ids=["empty", "html", "lfs", "text"],
)
def test_impostors_are_named(tmp_path: Path, read: Read, raw: bytes, told: str) -> None:
    """What is often saved under a model's name is told for what it is."""
    (tmp_path / "model").write_bytes(raw)

    with pytest.raises(BadFile, match=told):
        read(tmp_path / "model")


@pytest.mark.parametrize("read", READS)
def test_what_is_no_file_is_told(tmp_path: Path, read: Read) -> None:
    """A path to nothing, to a folder or to a pipe is refused, and never waited for."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(BadFile, match="no such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(BadFile, match="is a directory, not a file"):
        read(tmp_path)
    with pytest.raises(BadFile, match="not a file"):
        read(tmp_path / "pipe")
    with pytest.raises(BadFile, match="cannot be read: File name too long"):
        read(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"PK\x03\x04" + bytes(64), "convert it to safetensors"),
        (struct.pack("<Q", 1 << 40) + b"{}", "cut short or damaged"),
        (struct.pack("<Q", 200_000) + b'{"a":' * 40_000, "cut short or damaged"),
        (b"GGUF" + struct.pack("<I", 3) + b"\xff" * 16, "cut short or damaged"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(16), "GGUF version 1"),
        (b"GGUF", "cut short or damaged"),
    ],
)
def test_damaged_beginnings_are_told(tmp_path: Path, raw: bytes, told: str) -> None:
    """Whatever follows a right beginning ends in a message, not in a crash."""
    (tmp_path / "model").write_bytes(raw)

    with pytest.raises(BadFile, match=told):
        files.read(tmp_path / "model")


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [1]},
        {"dtype": "F16", "shape": [1]},
        {"dtype": "F16", "shape": [-1], "data_offsets": [0, 2]},
        {"dtype": "F16", "shape": [4], "data_offsets": [0, 2]},
        {"dtype": "F16", "shape": [1 << 40], "data_offsets": [0, 1 << 41]},
        {"dtype": "Q9", "shape": [1], "data_offsets": [0, 2]},
        {"dtype": "Q9", "shape": [1], "data_offsets": [2, 0]},
        {"dtype": "F16", "shape": "x", "data_offsets": [0, 2]},
        {"dtype": [], "shape": [1], "data_offsets": [0, 2]},
        [1],
    ],
)
def test_a_damaged_safetensors_head_is_refused(tmp_path: Path, entry: object) -> None:
    """A head that would end an engine's process is told as a bad file."""
    file = sd_files.write_header(tmp_path / "x.safetensors", {"a": entry}, b"\0\0")

    with pytest.raises(BadFile, match="damaged"):
        files.read(file)


@pytest.mark.parametrize("name", ["diffusion.safetensors", "llm.gguf", "taesd.safetensors"])
@pytest.mark.parametrize("part", [0.99, 0.5, 0.001])
def test_half_a_download_is_refused(models: Path, tmp_path: Path, name: str, part: float) -> None:
    """A file that ends too early is told, wherever it ends."""
    whole = (models / "image" / name).read_bytes()
    file = tmp_path / name
    file.write_bytes(whole[: int(len(whole) * part)])

    with pytest.raises(BadFile, match="download it again"):
        files.read(file)


def test_a_safetensors_head_has_its_shapes(tmp_path: Path) -> None:
    """Names and shapes are as written, and the data end where the file does."""
    file = sd_files.write_safetensors(tmp_path / "x", {"a.weight": (2, 3), "b": ()})

    header = files.read(file)

    assert header.shapes == {"a.weight": (2, 3), "b": ()}
    assert (header.shape("weight"), header.shape("eight")) == ((2, 3), None)
    assert header.data_end == file.stat().st_size
    assert header == files.read_safetensors(file)


@pytest.mark.parametrize("json_bytes", [0x3C, 0x3C20])
def test_a_length_that_looks_like_text_is_a_length(tmp_path: Path, json_bytes: int) -> None:
    """A safetensors file that begins with the bytes of ` <` is not taken for a web page."""
    raw = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'.ljust(json_bytes)
    (tmp_path / "x").write_bytes(struct.pack("<Q", json_bytes) + raw + b"\0\0")

    assert files.read(tmp_path / "x").shapes == {"a": (2,)}


def test_a_gguf_head_has_its_keys_and_shapes(tmp_path: Path) -> None:
    """Shapes are in torch's order; a vocabulary is stepped over, a short array is read."""
    keys = string("general.architecture") + struct.pack("<I", 8) + string("tiny")
    keys += string("tiny.heads") + struct.pack("<I", 4) + struct.pack("<I", 7)
    keys += string("tiny.names") + struct.pack("<IIQ", 9, 8, 2) + string("x") + string("yy")
    keys += string("tiny.scores") + struct.pack("<IIQ", 9, 6, 2000) + bytes(8000)
    keys += string("tiny.layers") + struct.pack("<IIQ", 9, 5, 2) + struct.pack("<ii", -1, 5)
    file = write_gguf(tmp_path / "x.gguf", keys=keys, key_count=5)

    header = files.read_gguf(file)

    assert header.shapes == {"a.weight": (2, 3)}
    assert (header.architecture, header.number("heads"), header.number("none")) == ("tiny", 7, 0)
    assert header.of_architecture("layers") == (-1, 5)
    assert header.keys["tiny.names"] is header.keys["tiny.scores"] is None
    assert header.data_end == file.stat().st_size
    assert header == files.read(file)


def test_an_unknown_type_passes_only_where_the_engine_may_know_it(tmp_path: Path) -> None:
    """A type of tensor that is newer than this list is for the engine to judge, if it can."""
    new = write_gguf(tmp_path / "new.gguf", kind=999)
    entry = {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}
    newer = sd_files.write_header(tmp_path / "new.safetensors", {"a": entry}, b"\0\0")

    assert files.read_gguf(new).unsized == ("a.weight",)
    assert files.read_safetensors(newer).unsized == ("a",)
    with pytest.raises(BadFile, match=r"type of 'a\.weight'"):
        files.read(new)
    with pytest.raises(BadFile, match="type of 'a'"):
        files.read(newer)
