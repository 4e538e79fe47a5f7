"""What a model can do: our words for it, or what goes into it and comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, Tag

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
    return ("chat", "vision", "completions") if options.get("mmproj") else ("chat", "completions")
