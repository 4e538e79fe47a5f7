"""From a path to a header; what cannot be a model is named for what it is."""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from workers.files import gguf, safetensors
from workers.files.header import BadFile, Header

HEAD_BYTES = 512
PICKLES = (b"PK\x03\x04", b"\x80\x02")

Parse = Callable[[mmap.mmap], Header]


def read(path: str | Path) -> Header:
    """Read the head of a safetensors or GGUF file whose every tensor lies inside it."""
    header = _read(Path(path), _of_either)
    if header.unsized:
        raise BadFile(f"is damaged, or too new: the type of {header.unsized[0]!r} is unknown")
    return header


def read_gguf(path: str | Path) -> Header:
    """Read the head of a GGUF file. Tensors of an unknown type pass: the engine may know it."""
    return _read(Path(path), _of_gguf)


def read_safetensors(path: str | Path) -> Header:
    """Read the head of a safetensors file. Tensors of an unknown type pass, as of a GGUF file."""
    return _read(Path(path), _of_safetensors)


def impostor(head: bytes) -> str | None:
    """Name what is often saved under another file's name, and the cure; None: it is no such."""
    if not head:
        return "is empty; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; run `git lfs pull`"
    # a safetensors file whose head is 60 bytes long begins with `<` too, but has zeros after it
    if head.lstrip()[:1] == b"<" and b"\0" not in head:
        return "is a web page, not the file itself; download that"
    return None


def _read(path: Path, parse_of: Callable[[bytes], Parse]) -> Header:
    try:
        _refuse_no_file(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            told = impostor(head)
            if told is not None:
                raise BadFile(told)
            parse = parse_of(head)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _whole(parse(data), len(data))
    except OSError as error:
        if error.errno == errno.ENOMEM:  # the file may well be sound
            raise MemoryError from error
        raise BadFile(f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise BadFile(f"is cut short or damaged ({error}); download it again") from error


def _refuse_no_file(path: Path) -> None:
    if not path.exists():
        raise BadFile("does not exist: no such file")
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "a device or a pipe"
        raise BadFile(f"is {kind}, not a file; name one file of weights")


def _whole(header: Header, size_bytes: int) -> Header:
    if header.data_end > size_bytes:
        raise ValueError(f"it has {size_bytes} of at least {header.data_end} bytes")
    return header


def _of_either(head: bytes) -> Parse:
    if gguf.begins(head):
        return gguf.parse
    if head.startswith(PICKLES):
        raise BadFile("is a pickle (.ckpt, .pt); convert it to safetensors")
    if not safetensors.begins(head):
        raise BadFile("is neither safetensors nor GGUF, or it is damaged")
    return safetensors.parse


def _of_gguf(head: bytes) -> Parse:
    if not gguf.begins(head):
        raise BadFile("is not a GGUF file; convert the model to GGUF first")
    return gguf.parse


def _of_safetensors(head: bytes) -> Parse:
    if not safetensors.begins(head):
        raise BadFile("is not a safetensors file, or it is damaged; download it again")
    return safetensors.parse
