"""What the engine is asked for: one picture, every number decided; and what it tells meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA that was found and fits the model."""

    name: str
    path: str
    weight: float


@dataclass(frozen=True, slots=True)
class Job:
    """One picture; the seed comes beside it, for n pictures differ in nothing else."""

    prompt: str
    width: int  # px, both multiples of the family's size_multiple
    height: int
    steps: int
    cfg_scale: float
    negative_prompt: str = ""
    guidance: float | None = None  # distilled
    sample_method: str | None = None
    scheduler: str | None = None
    clip_skip: int | None = None
    flow_shift: float | None = None
    loras: tuple[Lora, ...] = ()
    strength: float = 1.0  # of the noise that lies over `init`
    init: Image.Image | None = None  # RGB, width x height
    mask: Image.Image | None = None  # L, width x height; white is painted anew
    references: tuple[Image.Image, ...] = ()  # RGB
    vae_tiling: bool = False
    vae_bytes: int | None = None  # for decoding it whole; None: it is done as `vae_tiling` says
    room_bytes: int | None = None  # that may take; None: what is free


@dataclass(frozen=True, slots=True)
class Step:
    """How far a picture is."""

    step: int  # of those done
    steps: int  # fewer than were asked for where a picture is painted over
    step_s: float  # on the average
    preview: Image.Image | None  # RGB, an 8th of the size; rough, and the newest
