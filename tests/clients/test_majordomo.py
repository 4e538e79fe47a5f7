"""majordomo's provider for llama-swap: pictures by either way, and what runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.drawn import decoded
from tests.proxy.served import Hotseat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]
KEYLESS = {"Authorization": "Bearer no-key"}
ASKED: dict[str, Any] = {
    "model": "painter",
    "prompt": "a red circle",
    "steps": 2,
    "cfg_scale": 4.5,
    "negative_prompt": "grey",
    "seed": 111,
}
OPENAI = {**ASKED, "size": "64x96", "sample_method": "euler_a", "response_format": "b64_json"}
A1111 = {**ASKED, "width": 64, "height": 96, "sampler_name": "euler_a", "batch_size": 1}


async def painted(hotseat: Hotseat, **said: object) -> list[str]:
    answer = await hotseat.post("/sdapi/v1/txt2img", json={**A1111, **said}, headers=KEYLESS)
    assert answer.status == 200, answer.body
    images: list[str] = answer.body["images"]
    return images


async def test_a_seed_is_a_seed(hotseat: Hotseat) -> None:
    """It left OpenAI's way for want of that; each picture of a batch has the next one."""
    first, second = await painted(hotseat, batch_size=2)
    [again] = await painted(hotseat)
    [next_one] = await painted(hotseat, seed=112)
    [random] = await painted(hotseat, seed=-1)

    assert decoded(first).size == (64, 96)
    assert decoded(first).tobytes() == decoded(again).tobytes()
    assert decoded(second).tobytes() == decoded(next_one).tobytes()
    assert len({first, second, random}) == 3


async def test_the_older_way_paints_the_same(hotseat: Hotseat) -> None:
    """All of its fields act there as well."""
    answer = await hotseat.post("/v1/images/generations", json=OPENAI, headers=KEYLESS)
    [told] = answer.body["data"]
    [other_way] = await painted(hotseat)

    assert decoded(told["b64_json"]).tobytes() == decoded(other_way).tobytes()


async def test_it_sees_and_ends_what_runs(hotseat: Hotseat) -> None:
    """A name that nobody has is not found."""
    await painted(hotseat)
    listed = await hotseat.get("/v1/models")
    before = await hotseat.running()
    unloaded = await hotseat.post("/api/models/unload/painter", headers=KEYLESS)
    lost = await hotseat.post("/api/models/unload/paintr", headers=KEYLESS)
    after = await hotseat.running()

    assert {"painter"} <= {one["id"] for one in listed.body["data"]}
    assert (list(before), unloaded.status, lost.status, after) == (["painter"], 200, 404, {})
