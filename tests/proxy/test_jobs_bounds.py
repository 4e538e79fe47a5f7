"""How many jobs there may be, and how much is kept of them: as the config says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.config import ConfigError, load_config, understood
from tests.proxy.painted import CONFIG, GENERATE, body, followed, later
from tests.proxy.served import Gate, Hotseat, served
from tests.proxy.test_reload import reloadable

LINKED = body(response_format="url")


def config(jobs: str) -> str:
    return f"{{jobs: {{{jobs}}}, {CONFIG}}}"


async def test_what_is_kept_tells_for_how_long(tmp_path: Path) -> None:
    """The job says when it goes, and a picture how long it is worth to be remembered."""
    async with served(config("keep: 90s"), tmp_path) as hotseat:
        job_id = (await later(hotseat)).body["id"]
        told = (await followed(hotseat, job_id))[-1]
        url = (await hotseat.post(GENERATE, json=LINKED)).body["data"][0]["url"]
        async with hotseat.session.get(url) as response:
            caching = response.headers["Cache-Control"]

    assert told["expires_at"] - told["ended_at"] == pytest.approx(90, abs=1)
    assert told["expires_at"] > time.time()
    assert caching == "private, max-age=90"


async def test_what_is_too_much_is_not_kept(tmp_path: Path) -> None:
    """A picture of 70 bytes needs room for them: the one before leaves, and then itself."""
    async with served(config("maxBytes: 400"), tmp_path) as hotseat:
        urls = [
            (await hotseat.post(GENERATE, json=LINKED)).body["data"][0]["url"] for _ in range(8)
        ]
        found = [await status_of(hotseat, url) for url in urls]

    assert found[0] == 404
    assert found[-1] == 200


async def status_of(hotseat: Hotseat, url: str) -> int:
    async with hotseat.session.get(url) as response:
        return response.status


async def test_bounds_can_be_changed_while_the_server_runs(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The next job meets the new ones."""
    held = gate()
    async with reloadable(config("maxPending: 1"), tmp_path) as proxy:
        hotseat = proxy.hotseat
        first = await later(hotseat, gate=held)
        await held.reached()
        refused = await later(hotseat)
        outcome = await proxy.take(config("max_pending: 2, keep: 5m"))
        second = await later(hotseat)
        held.open()
        told = (await followed(hotseat, second.body["id"]))[-1]

    assert (first.status, refused.status, second.status) == (202, 429, 202)
    assert "jobs.maxPending" in refused.error["message"]
    assert (outcome.is_well, outcome.as_json()["needs_restart"]) == (True, [])
    assert told["expires_at"] - told["ended_at"] == pytest.approx(300, abs=1)


@pytest.mark.parametrize("said", ["keep: 0", "maxBytes: 0", "max_pending: 0", "bytes: 1"])
def test_bounds_that_would_keep_nothing_are_mistakes(tmp_path: Path, said: str) -> None:
    """Told by their line and key, as all are."""
    path = tmp_path / "swap.yaml"
    path.write_text(f"jobs:\n  {said}\n{CONFIG}\n")

    with pytest.raises(ConfigError, match=rf"swap.yaml:2: jobs.{said.partition(':')[0]}"):
        load_config(path)


def test_bounds_are_told_where_they_are_not_the_usual_ones(tmp_path: Path) -> None:
    """By `hotseat check`."""
    path = tmp_path / "swap.yaml"
    path.write_text(config("maxBytes: 2GiB"))
    said = understood(load_config(path).config)
    path.write_text(CONFIG)
    usual = understood(load_config(path).config)

    assert "jobs: 100 at once, 2.0 GiB kept for 3600 s" in said
    assert "jobs" not in usual
