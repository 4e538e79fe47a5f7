"""Which LoRAs a model has: the files in its folder, as they are now, without its worker."""

from __future__ import annotations

import asyncio
from pathlib import Path

from proxy.config import Config, ModelConfig

SUFFIXES = frozenset({".safetensors", ".gguf"})


async def loras_of(config: Config, model: ModelConfig) -> list[str]:
    """Name them, as a request names them: the path in the folder, without its suffix."""
    folder = model.options.get("lora_dir")
    if model.kind != "sd" or not isinstance(folder, str):
        return []
    return await asyncio.to_thread(_names, config.folder / folder)


def _names(folder: Path) -> list[str]:
    try:
        found = [file for file in folder.rglob("*") if file.suffix in SUFFIXES]
    except OSError:
        return []
    return sorted({str(file.relative_to(folder).with_suffix("")) for file in found})
