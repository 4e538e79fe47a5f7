"""The three doors out of a picture under way: leaving, an interrupt, and the end of a job."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.proxy.painted import PAINTER, until
from tests.proxy.served import Answer, Hotseat, served

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]
CONFIG = (
    PAINTER
    + """
apiKeys: [ours, theirs]
models:
  painter:
    sd:
      <<: *painter
      max_steps: 1000
"""
)
SHORT = {"prompt": "a red circle", "seed": 5, "steps": 2, "width": 64, "height": 64}
LONG = {"prompt": "a blue one", "steps": 1000, "width": 256, "height": 256}
THEIRS = {"Authorization": "Bearer theirs"}
PAINT = "/sdapi/v1/txt2img"
STEPS_LATE = 10
"""It ends at its next step; the rest is for a busy machine, where steps differ. 990 were left."""


@dataclass
class Painter:
    """A proxy with a painter, and what it paints when nobody disturbs it."""

    hotseat: Hotseat
    undisturbed: str
    took_s: float

    async def paint(self) -> tuple[str, float]:
        """Paint the same again, and tell how long that took."""
        began = time.monotonic()
        answer = await self.hotseat.post(PAINT, json=SHORT)
        return answer.body["images"][0], time.monotonic() - began

    async def under_way(self) -> float:
        """Wait until the picture has a few steps behind it; gives the seconds that one takes."""
        told = await until(
            self.hotseat, "/sdapi/v1/progress", lambda told: told["state"]["sampling_step"] > 3
        )
        state = told["state"]
        left: float = told["eta_relative"] / (state["sampling_steps"] - state["sampling_step"])
        return left


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def painter(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Painter]:
    """Serve one for all tests of this module."""
    folder = tmp_path_factory.mktemp("cancel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        async with served(CONFIG.format(models=models), folder) as hotseat:
            hotseat.session.headers["Authorization"] = "Bearer ours"
            one = Painter(hotseat, "", 0.0)
            await one.paint()
            one.undisturbed, one.took_s = await one.paint()
            yield one


Asking = asyncio.Task[Answer]
Door = Callable[[Hotseat, Asking], Awaitable[object]]


async def leave(_hotseat: Hotseat, asking: Asking) -> None:
    asking.cancel()
    await asyncio.wait({asking})


async def interrupt(hotseat: Hotseat, _asking: Asking) -> None:
    await hotseat.post("/sdapi/v1/interrupt")


async def end_the_job(hotseat: Hotseat, _asking: Asking) -> None:
    await hotseat.post("/api/jobs/long/cancel")


@pytest.mark.parametrize("door", [leave, interrupt, end_the_job])
async def test_the_engine_is_free_at_its_next_step(painter: Painter, door: Door) -> None:
    """Whichever way a picture is given up; the next one is what it would have been without."""
    hotseat = painter.hotseat
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            hotseat.post(PAINT, json=LONG, headers={"X-Hotseat-Job": "long"})
        )
        step_s = await painter.under_way()
        began = time.monotonic()
        await door(hotseat, asking)
        picture, _ = await painter.paint()
        late_s = time.monotonic() - began - painter.took_s

    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert picture == painter.undisturbed
    assert late_s < STEPS_LATE * step_s + painter.took_s
    if door is not leave:
        assert (asking.result().status, asking.result().error["code"]) == (499, "cancelled")


async def test_a_strangers_interrupt_ends_nothing(painter: Painter) -> None:
    """With keys, each ends what is of his own."""
    hotseat = painter.hotseat
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(hotseat.post(PAINT, json=LONG))
        await painter.under_way()
        await hotseat.post("/sdapi/v1/interrupt", headers=THEIRS)
        theirs: Any = await progress(hotseat, THEIRS)
        before: Any = await progress(hotseat, {})
        await until(
            hotseat,
            "/sdapi/v1/progress",
            lambda told: told["progress"] > before or not told["state"]["job_count"],
        )
        goes_on = not asking.done()
        await hotseat.post("/sdapi/v1/interrupt")

    assert (theirs, goes_on) == (0, True)
    assert asking.result().status == 499


async def progress(hotseat: Hotseat, headers: dict[str, str]) -> float:
    async with hotseat.session.get("/sdapi/v1/progress", headers=headers) as response:
        told: float = (await response.json())["progress"]
    return told
