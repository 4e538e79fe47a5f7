"""Configs that count memory, and what tests of them wait for."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.nvml.device import ScriptedGpu, ScriptedNvml
from tests.proxy.served import Hotseat

MIB, GIB = 1 << 20, 1 << 30
Entry = Mapping[str, object]
"""What swap.yaml says of a model."""


def config_of(models: Mapping[str, Entry], **top: object) -> str:
    """Write a swap.yaml: JSON is YAML."""
    return json.dumps({**top, "models": models})


def on_card(card: ScriptedGpu, count_bytes: int, /, **more: object) -> Entry:
    """Make an echo that holds so much of the GPU; `more` are keys of the model, or `echo`."""
    options = more.pop("echo", {})
    assert isinstance(options, dict)
    allocate = {"path": str(card.held), "bytes": count_bytes}
    return {"echo": {"allocate": allocate, **options}, **more}


async def running_when(
    hotseat: Hotseat, is_so: Callable[[dict[str, dict[str, Any]]], bool]
) -> dict[str, dict[str, Any]]:
    """Ask /running until it is so; the test's own time limit bounds it."""
    while not is_so(running := await hotseat.running()):
        pass
    return running


async def state_of(hotseat: Hotseat, model: str, state: str) -> dict[str, Any]:
    """Wait until the model is in the state; gives its entry."""
    found = await running_when(hotseat, lambda all_: all_.get(model, {}).get("state") == state)
    return found[model]


async def charge_of(hotseat: Hotseat, model: str, device: str) -> int:
    """Tell how many bytes of the device the model's worker is charged with."""
    charge: int = (await hotseat.running())[model]["memory"].get(device, 0)
    return charge


async def answered(*calls: Awaitable[Any]) -> None:
    """See that each is answered well, one after the other."""
    for call in calls:
        answer = await call
        assert answer.status == 200, answer.body


async def held_back(hotseat: Hotseat, model: str) -> None:
    """Wait until the model's worker is up, and all that it lacks is room."""

    def waits(queue: dict[str, Any]) -> bool:
        return any(w["model"] == model and w["waiting_for"] == "room" for w in queue["waiting"])

    while not waits((await hotseat.get("/api/queue")).body):
        pass


async def budget_seen(hotseat: Hotseat, gib: int) -> None:
    """Wait until so much of the GPU is thought to be there for us."""
    gauge = re.compile(
        r'^hotseat_memory_bytes\{device="gpu0",state="budget"\} (.+)$', re.MULTILINE
    )
    while True:
        told = gauge.search((await hotseat.get("/metrics")).body)
        assert told is not None
        if float(told[1]) == gib * GIB:
            return


@pytest.fixture
def gpu(scripted_nvml: ScriptedNvml) -> ScriptedGpu:
    """Give the only GPU, of 24 GiB."""
    return scripted_nvml.add_gpu()
