"""Whose a job is: with keys, that of the key which made it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.proxy.painted import CONFIG, GENERATE, body
from tests.proxy.served import Gate, Hotseat, served
from tests.proxy.test_reload import reloadable

KEYED = f"{{apiKeys: [ours, theirs], {CONFIG}}}"
OURS, THEIRS = ({"Authorization": f"Bearer {key}"} for key in ("ours", "theirs"))
BOTH = (OURS, THEIRS)


async def asked(hotseat: Hotseat, method: str, path: str, key: dict[str, str]) -> tuple[int, Any]:
    async with hotseat.session.request(method, path, headers=key) as response:
        return response.status, await response.json()


async def begun(hotseat: Hotseat, key: dict[str, str], held: Gate | None = None) -> str:
    told = await hotseat.post(f"{GENERATE}?async=1", json=body(held), headers=key)
    job_id: str = told.body["id"]
    return job_id


async def over(hotseat: Hotseat, job_id: str, key: dict[str, str]) -> None:
    async with hotseat.session.get(f"/api/jobs/{job_id}/events", headers=key) as response:
        assert response.status == 200
        await response.read()


async def test_a_job_is_known_to_its_key_alone(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Another's is told nothing: not in lists, not by name, and can end nothing."""
    held = gate()
    async with served(KEYED, tmp_path) as hotseat:
        job_id = await begun(hotseat, OURS, held)
        await held.reached()
        listed = [await asked(hotseat, "GET", "/api/jobs", key) for key in BOTH]
        refused = [
            await asked(hotseat, method, f"/api/jobs/{job_id}{rest}", THEIRS)
            for method, rest in (
                *(("GET", ""), ("GET", "/events"), ("GET", "/result")),
                *(("POST", "/cancel"), ("DELETE", "")),
            )
        ]
        progress = [await asked(hotseat, "GET", "/sdapi/v1/progress", key) for key in BOTH]
        held.open()
        await over(hotseat, job_id, OURS)
        result, _ = await asked(hotseat, "GET", f"/api/jobs/{job_id}/result", OURS)

    assert [len(told["jobs"]) for _, told in listed] == [1, 0]
    assert {(status, told["error"]["code"]) for status, told in refused} == {
        (404, "job_not_found")
    }
    assert [told["state"]["job_count"] for _, told in progress] == [1, 0]
    assert result == 200


async def test_news_of_a_job_is_for_its_key(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Each hears of his own, from the beginning and as it goes on."""
    held = gate()
    async with served(KEYED, tmp_path) as hotseat:
        first = await begun(hotseat, OURS, held)
        await held.reached()
        async with (
            hotseat.session.get("/api/events", headers=OURS) as ours,
            hotseat.session.get("/api/events", headers=THEIRS) as theirs,
        ):
            begin = await next_jobs(ours)
            await begun(hotseat, OURS)
            theirs_own = await begun(hotseat, THEIRS)
            heard = await next_jobs(theirs)
            ours.close()
            theirs.close()
        held.open()
        await over(hotseat, theirs_own, THEIRS)

    assert begin == [first]
    assert heard == [theirs_own]


async def next_jobs(events: aiohttp.ClientResponse) -> list[str]:
    """Give the names in the next news of jobs."""
    async for line in events.content:
        if line.startswith(b"data:"):
            event = json.loads(line.removeprefix(b"data:"))
            if event["type"] == "job":
                data = json.loads(event["data"])
                return [one["id"] for one in data.get("jobs") or [data["job"]]]
    raise AssertionError("nothing was heard")


async def test_without_keys_a_job_is_everybodys(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """And for who has a key, if there are keys later on; when they go, all is as before."""
    held = gate()
    async with reloadable(CONFIG, tmp_path) as proxy:
        job_id = await begun(proxy.hotseat, {}, held)
        await held.reached()
        before, _ = await asked(proxy.hotseat, "GET", f"/api/jobs/{job_id}", {})
        await proxy.take(KEYED)
        after = [
            (await asked(proxy.hotseat, "GET", f"/api/jobs/{job_id}", key))[0]
            for key in ({}, *BOTH)
        ]
        ours = await begun(proxy.hotseat, OURS)
        await proxy.take(CONFIG)
        at_last, _ = await asked(proxy.hotseat, "GET", f"/api/jobs/{ours}", {})
        held.open()

    assert (before, after, at_last) == (200, [401, 200, 200], 200)


async def test_the_workers_own_list_of_jobs_is_nobodys(tmp_path: Path) -> None:
    """By any spelling of its path; without keys it is open to all, as the rest of the worker."""
    async with served(KEYED, tmp_path) as hotseat:
        told = [
            await asked(hotseat, method, f"/upstream/a/{path}", THEIRS)
            for method, path in (
                *(("GET", "progress?preview=1"), ("GET", "x/%2e%2e/Progress")),
                ("POST", "interrupt"),
            )
        ]
    async with served(CONFIG, tmp_path) as hotseat:
        status, _ = await asked(hotseat, "GET", "/upstream/a/progress", {})

    assert {(one, body["error"]["code"]) for one, body in told} == {(400, "jobs_have_owners")}
    assert status == 200
