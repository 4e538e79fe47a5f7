"""Requests for pictures, with and without an engine, and looks at their jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.proxy.served import Answer, Gate, Hotseat

CONFIG = "models: {a: {concurrencyLimit: 1, echo: {}}}"
PAINTER = """
x-painter: &painter
  diffusion_model: {models}/image/diffusion.safetensors
  llm: {models}/image/llm.gguf
  taesd: {models}/image/taesd.safetensors
  n_threads: 1
"""
"""Options of the tiny painter, to be merged into those of a model."""
GENERATE = "/v1/images/generations"


def body(gate: Gate | None = None, **more: Any) -> dict[str, Any]:
    """Make a request for a picture; it waits at the gate."""
    echo = {**more.pop("echo", {}), **({"gate": str(gate.path)} if gate else {})}
    return {"model": "a", "prompt": "x", "echo": echo, **more}


async def later(hotseat: Hotseat, **more: Any) -> Answer:
    """Ask for a picture, and do not wait for it."""
    return await hotseat.post(f"{GENERATE}?async=1", json=body(**more))


async def followed(hotseat: Hotseat, job_id: str) -> list[Mapping[str, Any]]:
    """Read the events of a job to their end."""
    async with hotseat.session.get(f"/api/jobs/{job_id}/events") as response:
        raw = await response.text()
    frames = [frame for frame in raw.split("\n\n") if frame.startswith("event:")]
    told = [json.loads(frame.split("data: ", 1)[1]) for frame in frames]
    assert [one["status"] for one in told] == [frame.split()[1] for frame in frames]
    return told


async def until(hotseat: Hotseat, path: str, fits: Callable[[Any], bool]) -> Any:
    """Ask until the answer fits; each question is a round trip, not a pause."""
    while not fits(answer := (await hotseat.get(path)).body):
        pass
    return answer
