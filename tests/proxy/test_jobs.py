"""Requests for pictures as jobs: asked about, left alone, cancelled."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.config import JobsConfig
from proxy.jobs import Jobs
from proxy.jobs.progress import ask
from proxy.wishes import Wish
from tests.proxy.painted import CONFIG, GENERATE, body, followed, later, until
from tests.proxy.served import Gate, served

PROGRESS = {"step": 3, "steps": 4, "image": 1, "images": 2, "eta_s": 1.5, "preview": "aGk="}


async def test_a_job_is_accepted_followed_and_fetched(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """At once comes its name, at the end the answer that a patient client would have had."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        accepted = await later(hotseat, gate=held)
        job_id = accepted.body["id"]
        await held.reached()
        early = await hotseat.get(f"/api/jobs/{job_id}/result")
        following = tasks.create_task(followed(hotseat, job_id))
        held.open()
        told = await following
        result = await hotseat.get(f"/api/jobs/{job_id}/result")
        plain = await hotseat.post(GENERATE, json=body())
        listed = (await hotseat.get("/api/jobs")).body["jobs"]

    assert (accepted.status, accepted.headers["Location"]) == (202, f"/api/jobs/{job_id}")
    assert (early.status, early.body["status"]) == (202, "running")
    assert told[-1]["status"] == "done"
    assert told[-1]["result"] == f"/api/jobs/{job_id}/result"
    assert (result.status, result.body["data"]) == (200, plain.body["data"])
    assert result.headers["X-Hotseat-Job"] == job_id != plain.headers["X-Hotseat-Job"]
    assert [job["id"] for job in listed] == [job_id]


async def test_a_job_tells_its_place_in_the_queue(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """And moves up."""
    first, second = gate(), gate()
    async with served(CONFIG, tmp_path) as hotseat:
        ids = [(await later(hotseat, gate=one)).body["id"] for one in (first, second)]
        await first.reached()
        waiting = (await hotseat.get(f"/api/jobs/{ids[1]}")).body
        first.open()
        await second.reached()
        running = (await hotseat.get(f"/api/jobs/{ids[1]}")).body
        second.open()
        await followed(hotseat, ids[1])

    assert (waiting["status"], waiting["position"]) == ("queued", 1)
    assert "queue 1, a is busy" in waiting["waits"]
    assert (running["status"], running["position"], running["waits"]) == ("running", None, None)


async def test_a_worker_says_how_far_it_is(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """To who asks, and to who listens; the preview only to who asks for this job."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat, hotseat.session.get("/api/events") as events:
        accepted = await later(hotseat, gate=held, echo={"progress": PROGRESS})
        await held.reached()
        told = (await hotseat.get(f"/api/jobs/{accepted.body['id']}")).body
        heard = await heard_of_progress(events)
        held.open()
        last = (await followed(hotseat, accepted.body["id"]))[-1]
        events.close()

    numbers = {name: PROGRESS[name] for name in ("step", "steps", "image", "images", "eta_s")}
    assert (told["progress"], told["preview"], told["eta_s"]) == (numbers, "aGk=", 1.5)
    assert heard["job"]["progress"] == numbers
    assert "preview" not in heard["job"]
    assert (last["progress"], last["preview"]) == (numbers, None)  # a kept one would be large


async def heard_of_progress(events: aiohttp.ClientResponse) -> Mapping[str, Any]:
    async for line in events.content:
        if line.startswith(b"data:"):
            event = json.loads(line.removeprefix(b"data:"))
            data = json.loads(event["data"])
            if event["type"] == "job" and data["job"]["progress"]:
                return data
    raise AssertionError("nothing was heard of it")


@pytest.mark.parametrize("which", [0, 1])
async def test_a_job_is_cancelled(tmp_path: Path, gate: Callable[[], Gate], which: int) -> None:
    """The one that runs, and the one that waits; the result says so."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat:
        ids = [(await later(hotseat, gate=held)).body["id"] for _ in range(2)]
        await held.reached()
        job_id = ids[which]
        await hotseat.post(f"/api/jobs/{job_id}/cancel")
        told = await followed(hotseat, job_id)
        result = await hotseat.get(f"/api/jobs/{job_id}/result")
        held.open()

    assert told[-1]["status"] == "cancelled"
    assert (result.status, result.error["code"]) == (499, "cancelled")


async def test_what_is_over_can_be_thrown_away(tmp_path: Path) -> None:
    """And nothing is left of it."""
    async with served(CONFIG, tmp_path) as hotseat:
        job_id = (await later(hotseat)).body["id"]
        await followed(hotseat, job_id)
        dropped = await hotseat.session.delete(f"/api/jobs/{job_id}")
        gone = [await hotseat.get(f"/api/jobs/{job_id}{rest}") for rest in ("", "/result")]

    assert dropped.status == 200
    assert [(one.status, one.error["code"]) for one in gone] == [(404, "job_not_found")] * 2


async def test_a_failed_job_keeps_its_error(tmp_path: Path) -> None:
    """With the status that it would have had."""
    async with served(CONFIG, tmp_path) as hotseat:
        crashed = (await later(hotseat, echo={"die_after": 0})).body["id"]
        refused = (await later(hotseat, echo={"status": 400})).body["id"]
        told = [(await followed(hotseat, one))[-1] for one in (crashed, refused)]
        results = [await hotseat.get(one["result"]) for one in told]

    assert [one["status"] for one in told] == ["failed", "failed"]
    assert [one["http_status"] for one in told] == [502, 400]
    assert [one.error["code"] for one in results] == ["worker_died", "told"]
    assert "went away" in told[0]["error"]


async def test_who_says_so_may_leave(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """`on_disconnect: finish` keeps the job and its result; by his own name he finds it again."""
    held = gate()
    headers = {"X-Hotseat-Job": "mine-1"}
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            hotseat.post(GENERATE, json=body(held, on_disconnect="finish"), headers=headers)
        )
        await held.reached()
        asking.cancel()
        await asyncio.wait({asking})
        held.open()
        told = await followed(hotseat, "mine-1")
        result = await hotseat.get("/api/jobs/mine-1/result")
        again = await hotseat.post(GENERATE, json=body(), headers=headers)

    assert told[-1]["status"] == "done"
    assert result.body["data"][0]["b64_json"]
    assert (again.status, again.error["code"]) == (400, "job_exists")


async def test_who_says_nothing_takes_his_job_with_him(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The worker is told, and nobody asks about the job any more."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            hotseat.post(GENERATE, json=body(held), headers={"X-Hotseat-Job": "mine"})
        )
        await held.reached()
        there = await hotseat.get("/api/jobs/mine")
        asking.cancel()
        await until(hotseat, "/api/jobs", lambda told: not told["jobs"])
        counts = await until(hotseat, "/upstream/a/counts", lambda told: told["cancelled"] == 1)
        held.open()

    assert there.body["status"] == "running"
    assert counts["finished"] == 0


async def test_who_leaves_has_cancelled_what_he_wanted_links_to(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """That is no failure, and the server has not left: who follows the job is told so."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        asked = body(held, response_format="url")
        asking = tasks.create_task(
            hotseat.post(GENERATE, json=asked, headers={"X-Hotseat-Job": "mine"})
        )
        await held.reached()
        async with hotseat.session.get("/api/jobs/mine/events") as events:
            asking.cancel()
            *_, last = (await events.text()).strip().split("\n\n")
        held.open()

    told = json.loads(last.partition("data: ")[2])
    assert (told["status"], told["error"]) == ("cancelled", None)


async def test_who_stays_gets_the_answer_of_a_job_that_need_not_end_with_him(
    tmp_path: Path,
) -> None:
    """As if it were any other."""
    async with served(CONFIG, tmp_path) as hotseat:
        plain = await hotseat.post(GENERATE, json=body())
        kept = await hotseat.post(GENERATE, json=body(on_disconnect="finish"))
        failed = await hotseat.post(
            GENERATE, json=body(on_disconnect="finish", echo={"status": 503})
        )

    assert kept.status == 200
    assert kept.body["data"] == plain.body["data"]
    assert (failed.status, failed.error["code"]) == (503, "told")


@pytest.mark.parametrize(
    ("path", "sent", "headers", "param"),
    [
        (f"{GENERATE}?async=perhaps", {}, {}, "async"),
        (GENERATE, {"on_disconnect": "stay"}, {}, "on_disconnect"),
        (GENERATE, {}, {"X-Hotseat-Job": "a/b"}, "X-Hotseat-Job"),
    ],
)
async def test_odd_wishes_are_refused(
    tmp_path: Path, path: str, sent: dict[str, str], headers: dict[str, str], param: str
) -> None:
    """By name."""
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.post(path, json=body(**sent), headers=headers)

    assert (answer.status, answer.error["param"]) == (400, param)


async def test_the_worker_hears_the_name_and_nothing_that_is_ours(tmp_path: Path) -> None:
    """Neither `async` nor `on_disconnect` reach it."""
    async with served(CONFIG, tmp_path) as hotseat:
        told = await hotseat.post(
            "/v1/images/variations?x=1&async=0&y",
            json=body(on_disconnect="cancel"),
            headers={"X-Hotseat-Job": "mine"},
        )

    assert told.body["path"] == "/v1/images/variations?x=1&y"
    assert ["X-Hotseat-Job", "mine"] in told.body["headers"]
    assert b"on_disconnect" not in base64.b64decode(told.body["body"])


async def test_only_so_many_jobs_go_on_by_themselves(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Each holds a body; more of them are asked to come again."""
    held = gate()
    async with served(f"{{jobs: {{maxPending: 1}}, {CONFIG}}}", tmp_path) as hotseat:
        first = await later(hotseat, gate=held)
        await held.reached()
        second = await later(hotseat)
        held.open()
        await followed(hotseat, first.body["id"])
        third = await later(hotseat)

    assert (second.status, second.error["code"]) == (429, "queue_full")
    assert "Retry-After" in second.headers
    assert third.status == 202


async def test_a_job_does_not_keep_the_server_from_leaving(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Nothing of it is left."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat:
        accepted = await later(hotseat, gate=held)
        await held.reached()

    assert accepted.status == 202
    assert hotseat.pool is not None
    assert hotseat.pool.standing.running() == []


async def test_a_worker_that_has_gone_is_not_asked(tmp_path: Path) -> None:
    """Its request may still be telling its client why, for as long as the client takes."""
    async with served(CONFIG, tmp_path) as hotseat:
        assert hotseat.pool is not None
        with hotseat.pool.ask("a", Wish()) as ticket:
            seat = (await ticket.lease()).seat
        await hotseat.post("/api/models/unload/a")
        told = await ask(seat)

    assert told == {}


async def test_what_breaks_in_one_job_breaks_no_other(tmp_path: Path) -> None:
    """Nor the server that they run in."""
    done = asyncio.Event()

    async def broken() -> None:
        raise ValueError("a mistake")

    async def sound() -> None:
        done.set()

    async with Jobs(tmp_path, JobsConfig, lambda _: None, lambda: False) as jobs:
        jobs.run_apart(broken)
        jobs.run_apart(sound)
        await done.wait()

    assert done.is_set()
