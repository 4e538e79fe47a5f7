"""What is wrong with a model's options and files, told before anything is evicted for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from workers import files, serve
from workers.llama.formats import FORMATS
from workers.llama.options import LlamaOptions

PROJECTOR_ARCHITECTURE = "clip"
ENCODERS = frozenset(
    [
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "gemma-embedding",
    ]
)
"""Architectures that can only embed or rank (llama.cpp, llama-arch.cpp)."""

QUANTISED_CACHE = frozenset(("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"))
_FIRST_PART = re.compile(r"-00001-of-(\d{5})\.gguf$")


def problems(options: LlamaOptions) -> list[serve.Problem]:
    """Find what is wrong without the engine: files, their heads, clashing options."""
    return [*_model(options), *_projector(options), *_clashes(options)]


def header(option: str, path: str) -> files.Header | serve.Problem:
    """Read a file's head, or say why it cannot be a model."""
    try:
        return files.read_gguf(path)
    except files.BadFile as error:
        return serve.Problem(option, f"{path} {error}")


def _model(options: LlamaOptions) -> Iterator[serve.Problem]:
    head = header("model", options.model)
    if isinstance(head, serve.Problem):
        yield head
        return
    if head.architecture == PROJECTOR_ARCHITECTURE:
        yield serve.Problem(
            "model", f"{options.model} is a projector (mmproj); name it as `mmproj` instead"
        )
    elif head.architecture in ENCODERS and not options.embedding:
        yield serve.Problem(
            "embedding",
            f"{options.model} ({head.architecture}) can only embed; add `embedding: true`",
            "bad_options",
        )
    for path in other_parts(options.model):
        part = header("model", path)
        if isinstance(part, serve.Problem):
            yield part


def other_parts(path: str) -> list[str]:
    """Name the other files of a model that was split; the engine finds them by name."""
    found = _FIRST_PART.search(path)
    numbers = range(2, int(found[1]) + 1 if found else 0)
    return [_FIRST_PART.sub(f"-{number:05}-of-\\1.gguf", path) for number in numbers]


def _projector(options: LlamaOptions) -> Iterator[serve.Problem]:
    if options.mmproj is None:
        return
    head = header("mmproj", options.mmproj)
    if isinstance(head, serve.Problem):
        yield head
    elif head.architecture != PROJECTOR_ARCHITECTURE:
        yield serve.Problem(
            "mmproj",
            f"{options.mmproj} is a language model ({head.architecture}), not a projector;"
            " give the mmproj file of the model",
        )
    elif not head.keys.get("clip.has_vision_encoder"):
        yield serve.Problem("mmproj", f"{options.mmproj} has no vision encoder")
    if options.embedding:
        yield serve.Problem("mmproj", "an embedding model reads no pictures", "bad_options")


def _clashes(options: LlamaOptions) -> Iterator[serve.Problem]:
    if options.flash_attn == "off" and options.type_v in QUANTISED_CACHE:
        yield serve.Problem(
            "type_v",
            f"{options.type_v} needs flash attention; set flash_attn: auto",
            "bad_options",
        )
    if options.pooling_type is not None and not options.embedding:
        yield serve.Problem("pooling_type", "only used with `embedding: true`", "bad_options")
    yield from _template(options)


def _template(options: LlamaOptions) -> Iterator[serve.Problem]:
    file, text = options.chat_template_file, options.chat_template
    if file is not None and not Path(file).is_file():
        yield serve.Problem("chat_template", f"no such file: {file}")
    elif file is None and text and "{" not in text and text not in FORMATS:
        yield serve.Problem(
            "chat_template",
            f"{text[:40]!r} is no template: give Jinja text, the path of a .jinja file, or one of"
            f" {', '.join(FORMATS)}",
            "bad_options",
        )
