"""A folder of LoRAs while its model runs: what is put there can be used at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.painted import PAINTER
from tests.proxy.served import Hotseat, served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]
CONFIG = (
    PAINTER
    + """
models:
  painter:
    sd:
      <<: *painter
      lora_dir: loras
      defaults: {{width: 64, height: 64, steps: 2}}
"""
)


async def listed(hotseat: Hotseat) -> dict[str, bool | None]:
    """Tell which LoRAs there are, and whether they fit; both listings say the same."""
    entry = (await hotseat.get("/v1/models/painter")).body
    theirs = (await hotseat.get("/sdapi/v1/loras")).body
    told = {one["name"]: one["fits"] for one in entry.get("loras", [])}
    assert told == {one["name"]: one["fits"] for one in theirs}
    return told


async def painted(hotseat: Hotseat, *loras: str) -> Any:
    asked = {"model": "painter", "prompt": "a red circle", "seed": 5, "loras": [*loras]}
    return await hotseat.post("/v1/images/generations", json=asked)


async def test_a_lora_can_be_used_as_soon_as_it_is_there(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who fits is told while there is a worker; one of another model is refused by name."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin
    folder = tmp_path / "loras"
    folder.mkdir()
    async with served(CONFIG.format(models=models), tmp_path) as hotseat:
        (folder / "odd.safetensors").write_bytes(b"no weights")
        untold = await listed(hotseat)
        plain = await painted(hotseat)
        shutil.copy(models / "image/loras/swap.safetensors", folder / "ink.safetensors")
        told = await listed(hotseat)
        inked = await painted(hotseat, "ink")
        odd = await painted(hotseat, "odd")
        (folder / "ink.safetensors").unlink()
        gone = await painted(hotseat, "ink")
        after = await listed(hotseat)
        again = await painted(hotseat)

    assert untold == {"odd": None}
    assert told == {"ink": True, "odd": False}
    assert inked.body["data"] != plain.body["data"] == again.body["data"]
    assert (odd.status, odd.error["code"]) == (400, "lora_mismatch")
    assert (gone.status, gone.error["code"]) == (404, "lora_not_found")
    assert after == {"odd": False}
