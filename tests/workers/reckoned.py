"""Asks the workers' estimates in this process, and takes them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workers.florence2 import estimate as florence2_estimate
from workers.florence2.options import Florence2Options
from workers.llama import estimate as llama_estimate
from workers.llama.options import LlamaOptions
from workers.memory import Memory
from workers.sd import estimate as sd_estimate
from workers.sd.options import SdOptions


def llama(path: Path, **more: Any) -> Memory:
    return llama_estimate.estimate(LlamaOptions.model_validate({"model": str(path), **more}))


def sd(**options: Any) -> Memory:
    return sd_estimate.estimate(SdOptions.model_validate(options))


def florence2(path: Path | str, **more: Any) -> Memory:
    return florence2_estimate.estimate(
        Florence2Options.model_validate({"model": str(path), **more})
    )


def held(memory: Memory, what: str) -> dict[str, int]:
    """Give a part's bytes by their place."""
    return {part.place: part.size_bytes for part in memory.parts if part.what == what}


def total(memory: Memory, what: str) -> int:
    return sum(size for place, size in held(memory, what).items() if place != "context")


def ladder(memory: Memory) -> dict[int, int]:
    return {rung.up_to_pixels: rung.size_bytes for rung in memory.requests}
