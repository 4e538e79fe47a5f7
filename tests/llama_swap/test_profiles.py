"""Profiles: names that mean another model while one of them is active."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.llama_swap.house import house, told
from tests.proxy.served import Answer, Hotseat, served

CONFIG = """
groups: {all: {swap: false, members: [a, b]}}
profiles:
  cheap: {description: saves, pins: {big: a, b: al, nothing: ""}}
  dear: {pins: {big: b, a: pick}}
selectors: {pick: {strategy: pin, targets: [b]}}
models:
  a: {cmd: "ECHO --reply a --tells", aliases: [al]}
  b: {cmd: "ECHO --reply b --tells"}
"""
CHAT = "/v1/chat/completions"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve two models and two profiles."""
    async with served(house(CONFIG), tmp_path_factory.mktemp("profiles")) as one:
        yield one


async def activate(hotseat: Hotseat, body: Any) -> Answer:
    async with hotseat.session.put("/api/profiles/active", json=body) as response:
        return Answer(response.status, await response.json(), dict(response.headers))


async def asked(hotseat: Hotseat, model: str) -> str | None:
    return (await told(hotseat, CHAT, json={"model": model, "messages": []})).reply


async def test_profiles_are_listed(hotseat: Hotseat) -> None:
    """With their pins, and which is active."""
    await activate(hotseat, {"name": None})
    body = (await hotseat.get("/api/profiles")).body
    cheap = next(one for one in body["profiles"] if one["id"] == "cheap")

    assert body["active"] is None
    assert cheap["description"] == "saves"
    assert cheap["pins"] == {"big": "a", "b": "al", "nothing": ""}


async def test_none_is_active_until_one_is_chosen(hotseat: Hotseat) -> None:
    """A pin means nothing before, and nothing again after."""
    await activate(hotseat, {"name": None})
    before = await hotseat.post(CHAT, json={"model": "big", "messages": []})
    chosen = await activate(hotseat, {"name": "cheap"})
    during = await asked(hotseat, "big")
    left = await activate(hotseat, {"name": None})

    assert before.status == 404
    assert (chosen.status, chosen.body["active"], during) == (200, "cheap", "a")
    assert left.body["active"] is None
    assert (await hotseat.get("/api/profiles")).body["active"] is None


@pytest.mark.parametrize(
    ("profile", "name", "by"), [("cheap", "b", "a"), ("dear", "big", "b"), ("dear", "a", "b")]
)
async def test_a_pin_leads_elsewhere(hotseat: Hotseat, profile: str, name: str, by: str) -> None:
    """To a model, an alias or a selector; also from a name that is a model's own."""
    await activate(hotseat, {"name": profile})

    assert await asked(hotseat, name) == by


async def test_an_empty_pin_leads_nowhere(hotseat: Hotseat) -> None:
    """The name is a 404 while the profile is active."""
    await activate(hotseat, {"name": "cheap"})
    answer = await hotseat.post(CHAT, json={"model": "nothing", "messages": []})

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_pins_hold_on_other_ways_in(hotseat: Hotseat) -> None:
    """In a form, in a query and in the path of /upstream."""
    await activate(hotseat, {"name": "cheap"})
    form = aiohttp.FormData({"model": "big"}, default_to_multipart=True)
    seen = [
        await told(hotseat, "/v1/images/edits", data=form),
        await told(hotseat, "/props?model=big", "GET"),
        await told(hotseat, "/upstream/big/x", "GET"),
    ]

    assert [one.reply for one in seen] == ["a", "a", "a"]


async def test_pinned_names_are_listed(hotseat: Hotseat) -> None:
    """Those that are nobody's own, while the profile is active."""
    await activate(hotseat, {"name": "cheap"})
    active = {entry["id"] for entry in (await hotseat.get("/v1/models")).body["data"]}
    await activate(hotseat, {"name": None})
    without = {entry["id"] for entry in (await hotseat.get("/v1/models")).body["data"]}

    assert "big" in active
    assert "big" not in without


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [({}, 400, "name"), ({"name": 3}, 400, "string"), ({"name": "x"}, 404, "x"), ([], 400, "")],
)
async def test_a_wrong_choice_is_told(hotseat: Hotseat, body: Any, status: int, word: str) -> None:
    """And changes nothing."""
    await activate(hotseat, {"name": "dear"})
    answer = await activate(hotseat, body)

    assert answer.status == status
    assert word in answer.error["message"]
    assert (await hotseat.get("/api/profiles")).body["active"] == "dear"
