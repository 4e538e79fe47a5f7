"""Which LoRAs a model has: the files in its folder as they are now; its worker tells who fits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.config import Config
from proxy.pool import Pool
from proxy.seat import Seat

SUFFIXES = frozenset({".safetensors", ".gguf"})
ASKED_WITHIN_S = 1.0
"""A listing waits no longer than that: the worker has to read the head of each file."""


@dataclass(frozen=True, slots=True)
class Lora:
    """One, as a request names it: by its path in the folder, without its suffix."""

    name: str
    fits: bool | None  # the model; None: no worker is there to tell


class _Told(BaseModel):
    name: str
    fits: bool


_ANSWER = TypeAdapter(list[_Told])


async def loras_of(config: Config, pool: Pool, model_id: str) -> list[Lora]:
    """List them by name; nothing is loaded for it."""
    model = config.models[model_id]
    folder = model.options.get("lora_dir")
    if model.kind != "sd" or not isinstance(folder, str):
        return []
    names = await asyncio.to_thread(_names, config.folder / folder)
    seat = pool.standing.ready_seat(model_id) if names else None
    fits = await _ask(seat) if seat is not None else {}
    return [Lora(name, fits.get(name)) for name in names]


def _names(folder: Path) -> list[str]:
    try:
        found = [file for file in folder.rglob("*") if file.suffix in SUFFIXES]
    except OSError:
        return []
    return sorted({str(file.relative_to(folder).with_suffix("")) for file in found})


async def _ask(seat: Seat) -> Mapping[str, bool]:
    """Ask the worker which of them fit; who does not answer knows nothing."""
    limit = aiohttp.ClientTimeout(total=ASKED_WITHIN_S)
    try:
        async with seat.process.session.get(f"{seat.process.url}/loras", timeout=limit) as answer:
            told = _ANSWER.validate_json(await answer.read())
    except (aiohttp.ClientError, OSError, TimeoutError, ValidationError):
        return {}
    return {one.name: one.fits for one in told}
