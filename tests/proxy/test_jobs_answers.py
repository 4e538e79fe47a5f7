"""What jobs leave: results, pictures that answers lead to, and what is kept of them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from proxy.config import JobsConfig
from proxy.jobs import KeptAnswer, Shelf, linked
from proxy.rundir.folder import found, home
from tests.proxy.painted import CONFIG, GENERATE, body, followed, later
from tests.proxy.served import Gate, served


async def test_pictures_are_served_to_who_wants_links(tmp_path: Path) -> None:
    """For a while, and without a key; a data: URL on request, and base64 if nothing is said."""
    config = f"{{apiKeys: [sesame], {CONFIG}}}"
    async with served(config, tmp_path) as hotseat:
        key = {"Authorization": "Bearer sesame"}
        answers = {
            kind: await hotseat.post(GENERATE, json=body(response_format=kind), headers=key)
            for kind in ("url", "data_url", "b64_json")
        }
        [linked], [inline], [plain] = (answers[kind].body["data"] for kind in answers)
        async with hotseat.session.get(linked["url"]) as response:
            picture = await response.read()
        lost = await hotseat.get("/v1/images/results/no.png")
        jobs = await hotseat.get("/api/jobs")
        accepted = await hotseat.post(
            f"{GENERATE}?async=1", json=body(response_format="url"), headers=key
        )
        stranger = await hotseat.get(f"/v1/images/results/{accepted.body['id']}")
        posted = await hotseat.post("/v1/images/results/a/b", json=body())

    assert linked.keys() == {"url"}
    assert linked["url"].startswith(f"{hotseat.url}/v1/images/results/")
    assert (response.status, response.content_type) == (200, "image/png")
    assert picture == base64.b64decode(plain["b64_json"])
    assert inline["url"] == f"data:image/png;base64,{plain['b64_json']}"
    assert (lost.status, lost.error["code"]) == (404, "picture_not_found")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert (jobs.status, stranger.status, posted.status) == (401, 404, 401)


async def test_a_picture_can_be_asked_about_without_its_bytes(tmp_path: Path) -> None:
    """HEAD tells its size."""
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.post(GENERATE, json=body(response_format="url"))
        url = answer.body["data"][0]["url"]
        async with hotseat.session.get(url) as response:
            picture = await response.read()
        async with hotseat.session.head(url) as response:
            rest = await response.read()

    assert (response.status, response.content_length, rest) == (200, len(picture), b"")


async def test_a_result_that_somebody_has_deleted_looks_broken(tmp_path: Path) -> None:
    """And never like an empty one."""
    async with served(CONFIG, tmp_path) as hotseat:
        job_id = (await later(hotseat)).body["id"]
        await followed(hotseat, job_id)
        (folder_of_ours() / "answers" / job_id).unlink()
        async with hotseat.session.get(f"/api/jobs/{job_id}/result") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_what_there_is_no_room_for_is_told_in_words(tmp_path: Path) -> None:
    """Now and later, and the job has failed; a client that only wants its answer has it."""
    async with served(CONFIG, tmp_path) as hotseat:
        (folder_of_ours() / "answers").touch()  # nothing can be put into a file
        linked = await hotseat.post(GENERATE, json=body(response_format="url"))
        job_id = (await later(hotseat)).body["id"]
        told = (await followed(hotseat, job_id))[-1]
        result = await hotseat.get(told["result"])
        plain = await hotseat.post(GENERATE, json=body())

    assert [(one.status, one.error["code"]) for one in (linked, result)] == [(507, "not_kept")] * 2
    assert told["status"] == "failed"
    assert "could not be kept" in told["error"]
    assert plain.status == 200


async def test_nothing_is_left_of_jobs_that_are_cancelled_and_thrown_away(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Neither files nor tasks, nor a place in the queue."""
    held = gate()
    async with served(CONFIG, tmp_path) as hotseat:
        first = (await later(hotseat, gate=held)).body["id"]
        await held.reached()
        tasks = asyncio.all_tasks()
        ids = [first, *[(await later(hotseat)).body["id"] for _ in range(20)]]
        for job_id in (*ids, *ids):  # it ends, and then it goes
            await hotseat.session.delete(f"/api/jobs/{job_id}")
            await hotseat.get("/api/jobs")
        left = (await hotseat.get("/api/jobs")).body["jobs"]
        queue = (await hotseat.get("/api/queue")).body["waiting"]
        files = list((folder_of_ours() / "answers").iterdir())
        next_one = await hotseat.post(GENERATE, json=body())
        held.open()

    assert (left, queue, files) == ([], [], [])
    assert len(asyncio.all_tasks()) <= len(tasks)
    assert next_one.status == 200


def folder_of_ours() -> Path:
    parent = home()
    assert parent is not None
    [ours] = [one.path for one in found(parent) if one.record and one.record.pid == os.getpid()]
    return ours


# What is kept


def bounds(**told: object) -> Callable[[], JobsConfig]:
    return lambda: JobsConfig.model_validate(told)


def kept(shelf: Shelf, name: str, size_bytes: int = 1) -> KeptAnswer:
    answer = shelf.new(name)
    answer.fill(200, None, {}, bytes(size_bytes))
    shelf.keep(name, answer)
    return answer


async def test_the_oldest_leave_when_there_is_no_room(tmp_path: Path) -> None:
    """Their files too."""
    shelf = Shelf(tmp_path / "kept", bounds(maxBytes=10))
    for name, size_bytes in (("a", 4), ("b", 4), ("c", 4)):
        kept(shelf, name, size_bytes)
    there = sorted(file.name for file in shelf.new("x").path.parent.iterdir())
    kept(shelf, "d", 10)
    last = sorted(file.name for file in shelf.new("x").path.parent.iterdir())
    shelf.clear()

    assert (there, last) == (["b", "c"], ["d"])


async def test_nothing_is_kept_for_ever(tmp_path: Path) -> None:
    """Its time over, it goes by itself."""
    shelf = Shelf(tmp_path / "kept", bounds(keep=0.001))
    answer = kept(shelf, "a")
    assert shelf.find("a") is answer
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.002, passed.set)
    await passed.wait()

    assert shelf.find("a") is None
    assert not answer.path.exists()


async def test_an_answer_is_read_while_it_grows(tmp_path: Path) -> None:
    """Byte for byte, by as many as want to."""
    answer = Shelf(tmp_path / "kept").new("a")
    answer.open(200, None, {"Content-Length": "9", "Content-Type": "x/y"})
    readers = [aiter(answer.chunks()) for _ in range(2)]
    answer.append(b"one")
    first = [await anext(reader) for reader in readers]
    answer.append(b"two")
    answer.end()
    rest = [[chunk async for chunk in reader] for reader in readers]

    assert (first, rest) == ([b"one"] * 2, [[b"two"]] * 2)
    assert answer.headers == {"Content-Type": "x/y"}


async def test_an_answer_that_cannot_be_kept_looks_broken(tmp_path: Path) -> None:
    """And the request itself is not disturbed."""
    answer = KeptAnswer(tmp_path, 9)  # a folder is no file
    answer.open(200, None, {})
    answer.append(b"x")
    answer.end()

    assert (answer.is_cut, answer.size_bytes) == (True, 0)


async def test_an_answer_without_end_is_not_kept(tmp_path: Path) -> None:
    """Nobody is there to stop it by leaving."""
    answer = Shelf(tmp_path / "kept", bounds(maxBytes=10)).new("a")
    answer.open(200, None, {})
    for _ in range(3):
        answer.append(b"four")
    answer.end()

    assert (answer.is_cut, answer.path.stat().st_size) == (True, 8)
    assert "more than 10 bytes" in answer.why


async def test_pictures_are_kept_whoever_waits_for_their_links(tmp_path: Path) -> None:
    """An answer that is thrown away meanwhile does not come back."""
    shelf = Shelf(tmp_path / "kept")
    answer = shelf.new("a")
    raw = b'{"data": [{"url": "data:image/png;base64,aGk="}]}'
    answer.fill(200, None, {}, raw)

    def keep(name: str, picture: KeptAnswer) -> None:
        shelf.keep(name, picture)
        answer.path.unlink()

    linked(answer, shelf, "http://x/", keep)

    assert [file.read_bytes() for file in (tmp_path / "kept").iterdir()] == [b"hi"]


def test_what_is_no_base64_stays_as_it_is(tmp_path: Path) -> None:
    """A worker's mistake in one picture does not break the answer that has others."""
    shelf = Shelf(tmp_path / "kept")
    answer = shelf.new("a")
    raw = b'[{"url": "data:image/png;base64,a"}, {"url": "data:image/png;base64,aGk="}]'
    answer.fill(200, None, {}, raw)
    kept: list[str] = []

    linked(answer, shelf, "http://x/", lambda name, _: kept.append(name))

    [name] = kept
    told = answer.path.read_bytes()
    assert told == raw.replace(b"data:image/png;base64,aGk=", f"http://x/{name}".encode())


async def test_a_file_that_was_cut_looks_cut(tmp_path: Path) -> None:
    """Who reads a kept answer does not wait for bytes that will never come again."""
    answer = KeptAnswer(tmp_path / "kept", 1 << 20)
    answer.fill(200, None, {}, b"whole")
    os.truncate(answer.path, 2)

    with pytest.raises(OSError, match="shorter"):
        assert [chunk async for chunk in answer.chunks()] == [b"wh"]
