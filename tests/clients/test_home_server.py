"""home-server's programs: one JSON document each way, and edits where others only paint."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.clients.drawn import decoded, opened, picture
from tests.proxy.served import Hotseat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]
BARE = base64.b64encode(picture(96, 64)).decode()
ASKED: dict[str, Any] = {
    "model": "painter",
    "prompt": "a blue circle",
    "n": 1,
    "user": "somebody",
    "seed": 5,
}


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
async def test_a_picture_in_json_is_an_edit(hotseat: Hotseat, head: str) -> None:
    """Bare or as a data: URI; the answer is of its size, and another without it."""
    edited = await hotseat.post("/v1/images/generations", json={**ASKED, "image": head + BARE})
    painted = await hotseat.post("/v1/images/generations", json={**ASKED, "size": "96x64"})
    told = [one.body["data"][0]["b64_json"] for one in (edited, painted)]

    assert decoded(told[0]).size == (96, 64)
    assert told[0] != told[1]


async def test_what_is_no_picture_is_not_painted_over(hotseat: Hotseat) -> None:
    """Another server would leave it out without a word."""
    answer = await hotseat.post("/v1/images/generations", json={**ASKED, "image": "bm8="})

    assert (answer.status, answer.error["param"]) == (400, "image")


async def test_a_link_can_be_followed_and_a_data_uri_be_had(hotseat: Hotseat) -> None:
    """`url`, which is what it asks for, leads here; `data_url` is what its own server gave."""
    asked = {**ASKED, "image": BARE}
    linked = await hotseat.post("/v1/images/generations", json={**asked, "response_format": "url"})
    inline = await hotseat.post(
        "/v1/images/generations", json={**asked, "response_format": "data_url"}
    )
    async with hotseat.session.get(linked.body["data"][0]["url"]) as response:
        raw = await response.read()
    head, _, text = inline.body["data"][0]["url"].partition(",")

    assert opened(raw).size == (96, 64)
    assert (head, base64.b64decode(text)) == ("data:image/png;base64", raw)


async def test_its_look_at_our_health_names_who_runs(hotseat: Hotseat) -> None:
    """`ok`, and the models that have a worker."""
    await hotseat.post("/v1/images/generations", json=ASKED)
    told = await hotseat.get("/healthz")

    assert (told.body["ok"], told.body["running"]) == (True, ["painter"])
