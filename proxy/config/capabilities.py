"""What a model can do: our words for it, or what goes into it and comes out; who sees for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PlainValidator, Tag

from proxy.config.section import LONG, SHORT, Section, by_form

Capability = Literal[
    "chat",
    "vision",
    "completions",
    "embeddings",
    "rerank",
    "describe",
    "image_generation",
    "text_to_image",
    "image_edit",
    "image_to_image",
]
IMAGE_WORDS: tuple[Capability, ...] = (
    "image_generation",
    "text_to_image",
    "image_edit",
    "image_to_image",
)
Modality = Literal["text", "audio", "image"]


class Modalities(Section):
    """What is said for listings alone: nothing is refused because of it."""

    inputs: tuple[Modality, ...] = Field(default=(), alias="in")
    outputs: tuple[Modality, ...] = Field(default=(), alias="out")
    tools: bool = False
    reranker: bool = False
    context: NonNegativeInt = 0


Capabilities: TypeAlias = Annotated[
    Annotated[tuple[Capability, ...], Tag(SHORT)] | Annotated[Modalities, Tag(LONG)], by_form
]


def _fallback(value: object) -> str | Literal[False] | None:
    if value is None or value is False or (isinstance(value, str) and value):
        return value
    raise ValueError("must be the name of a model that describes pictures, or false")


VisionFallback: TypeAlias = Annotated[str | Literal[False] | None, PlainValidator(_fallback)]
"""Who puts pictures into words for models that cannot see; false: nobody does."""


def words_of(kind: str, options: Mapping[str, Any]) -> tuple[Capability, ...] | None:
    """Tell what a worker of this kind can do; None: a `cmd`, of which nothing is known."""
    match kind:
        case "llama":
            return _llama_words(options)
        case "sd":
            return IMAGE_WORDS
        case "florence2":
            return ("chat", "vision", "describe")
        case "echo":
            return ("chat", "vision", "completions", "embeddings", *IMAGE_WORDS)
        case _:
            return None


def _llama_words(options: Mapping[str, Any]) -> tuple[Capability, ...]:
    if options.get("pooling_type") == "rank":
        return ("rerank",)
    if options.get("embedding"):
        return ("embeddings",)
    if options.get("mmproj"):
        return ("chat", "vision", "completions", "describe")
    return ("chat", "completions")
