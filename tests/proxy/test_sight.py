"""Pictures that a chat only names: they come to the model as pictures, or the chat is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.proxy.describer import picture, uri
from tests.proxy.painted import followed
from tests.proxy.served import Answer, Gate, Hotseat, served, spawned
from tests.proxy.test_filters import peak_of

CONFIG = f"""
models:
  mirror: {{echo: {{tells: true}}}}
  foreign:
    cmd: {sys.executable} -P -m workers.echo --port ${{PORT}} --options '{{"tells":true}}'
"""
CHAT, PAINT = "/v1/chat/completions", "/v1/images/generations"
PNG = picture(caption="x")
UNKNOWN = "file-" + "0a" * 16


@pytest.fixture
async def hotseat(tmp_path: Path) -> AsyncIterator[Hotseat]:
    async with served(CONFIG, tmp_path) as hotseat:
        yield hotseat


def image_url(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def chat(*parts: Any, model: str = "mirror", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": list(parts)}], **more}


async def asked(hotseat: Hotseat, document: Any, path: str = CHAT) -> Answer:
    raw = io.BytesIO(json.dumps(document).encode())
    return await hotseat.post(path, data=raw, headers={"Content-Type": "application/json"})


def heard(answer: Answer) -> Any:
    """Give the body that a mirror got."""
    assert answer.status == 200, answer.body
    return json.loads(base64.b64decode(answer.body["body"]))


async def stored(hotseat: Hotseat, raw: bytes = PNG) -> str:
    """Upload a picture; give its reference."""
    form = aiohttp.FormData({"purpose": "vision"})
    form.add_field("file", io.BytesIO(raw), filename="a.png", content_type="image/png")
    answer = await hotseat.post("/v1/files", data=form)
    assert answer.status == 200, answer.body
    return answer.body["id"]


async def test_a_reference_becomes_the_picture(hotseat: Hotseat) -> None:
    """In every form, in any turn; what stands beside it stays, the model's name and detail too."""
    name = await stored(hotseat)
    parts = [
        {"type": "text", "text": name},
        image_url(name, detail="low"),
        {"type": "input_image", "file_id": name},
        {"type": "image", "image_cid": name},
        image_url(uri(b"other")),
    ]

    told = heard(await asked(hotseat, chat(*parts, temperature=0.5, priority="high")))

    as_part = image_url(uri(PNG))
    expected = [parts[0], image_url(uri(PNG), detail="low"), as_part, as_part, parts[4]]
    assert told == chat(*expected, temperature=0.5)


async def test_a_large_picture_comes_whole(hotseat: Hotseat) -> None:
    """As it does in a body that is too long to be held in memory itself."""
    raw = PNG + bytes(range(256)) * 8_000
    name = await stored(hotseat, raw)
    long = "x" * (2 << 20)

    told = heard(await asked(hotseat, chat(image_url(name), {"type": "text", "text": long})))

    assert told == chat(image_url(uri(raw)), {"type": "text", "text": long})


async def test_a_picture_is_found_by_its_hash(hotseat: Hotseat) -> None:
    """HearthNet's parts name content, not uploads."""
    name = await stored(hotseat)

    for cid in (hashlib.sha256(PNG).hexdigest(), name.removeprefix("file-")):
        told = heard(await asked(hotseat, chat({"type": "image", "image_cid": cid})))
        assert told == chat(image_url(uri(PNG)))


@pytest.mark.parametrize(
    ("part", "code", "status"),
    [
        (image_url(UNKNOWN), "file_not_found", 404),
        (image_url("file-of-mine"), "file_not_found", 404),
        ({"type": "image", "image_cid": "bafy1"}, "file_not_found", 404),
        ({"type": "image_file", "image_file": {"file_id": "x"}}, "file_not_found", 404),
        (image_url("http://127.0.0.1:1/a.png"), "remote_images_off", 400),
    ],
)
async def test_what_is_not_here_is_told_before_a_swap(
    hotseat: Hotseat, part: Any, code: str, status: int
) -> None:
    """The error names the place and the picture, and says what to do instead."""
    answer = await asked(hotseat, chat(image_url(uri(PNG)), part))

    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["param"] == "messages.0.content.1"
    assert ("POST /v1/files" if status == 404 else "fetch_images") in answer.error["message"]
    assert await hotseat.running() == {}


async def test_a_foreign_worker_judges_what_is_its_own(hotseat: Hotseat) -> None:
    """Addresses and names that we did not give go on as they came; ours are found, or refused."""
    name = await stored(hotseat)
    parts = [image_url("https://example.com/a.png"), {"type": "input_image", "file_id": "file-Xy"}]

    told = heard(await asked(hotseat, chat(*parts, image_url(name), model="foreign")))
    missing = await asked(hotseat, chat(image_url(UNKNOWN), model="foreign"))

    assert told == chat(*parts, image_url(uri(PNG)), model="foreign")
    assert (missing.status, missing.error["code"]) == (404, "file_not_found")


async def test_responses_keep_their_own_form(hotseat: Hotseat) -> None:
    """There a part with a picture is called otherwise, and its address is a text."""
    name = await stored(hotseat)
    part = {"type": "input_image", "file_id": name, "detail": "auto"}
    document = {"model": "foreign", "input": [{"role": "user", "content": [part]}]}

    told = heard(await asked(hotseat, document, "/v1/responses"))

    part = {"type": "input_image", "image_url": uri(PNG), "detail": "auto"}
    assert told["input"][0]["content"] == [part]


@pytest.mark.parametrize("image", ["reference", "object", "list"])
async def test_a_field_may_name_a_picture(hotseat: Hotseat, image: str) -> None:
    """Where pictures are painted: the worker gets the picture itself, a job as well."""
    name = await stored(hotseat)
    forms = {"reference": name, "object": {"image_url": {"url": name}}, "list": [name, "QUJD"]}
    document = {"model": "foreign", "prompt": "x", "image": forms[image]}

    told = heard(await asked(hotseat, document, "/v1/images/edits"))

    assert told["image"] == ([uri(PNG), "QUJD"] if image == "list" else uri(PNG))


async def test_a_job_is_under_way_while_its_pictures_are_fetched(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Who does not wait is answered at once; it can be asked about, and ended."""
    held = gate()

    async def give(_: web.Request) -> web.Response:
        await asyncio.to_thread(held.path.read_bytes)
        return web.Response(body=PNG)

    app = web.Application()
    app.router.add_get("/a", give)
    async with (
        TestServer(app) as far,
        served(f"fetch_images: {{allow: [127.0.0.1]}}\n{CONFIG}", tmp_path) as hotseat,
    ):
        document = {"model": "mirror", "prompt": "x", "image": str(far.make_url("/a"))}
        accepted = await asked(hotseat, document, f"{PAINT}?async=1")
        await held.reached()
        job_id = accepted.body["id"]
        during = await hotseat.get(f"/api/jobs/{job_id}")
        await hotseat.post(f"/api/jobs/{job_id}/cancel")
        told = (await followed(hotseat, job_id))[-1]
        running = await hotseat.running()
        held.open()

    assert (accepted.status, during.body["status"]) == (202, "queued")
    assert (told["status"], running) == ("cancelled", {})


async def test_filters_see_the_body_that_is_sent(tmp_path: Path) -> None:
    """They may even change the very message that had the picture in it."""
    filters = "{stripParams: seed, setParams: {messages.0.role: system}}"
    config = f"models: {{mirror: {{echo: {{tells: true}}, filters: {filters}}}}}"
    async with served(config, tmp_path) as hotseat:
        name = await stored(hotseat)
        told = heard(await asked(hotseat, chat(image_url(name), seed=1)))

    expected = chat(image_url(uri(PNG)))
    expected["messages"][0]["role"] = "system"
    assert told == expected


async def test_a_peer_gets_the_picture(tmp_path: Path) -> None:
    """The reference is ours alone: another server could not know it."""
    (tmp_path / "far").mkdir()
    async with served(CONFIG, tmp_path / "far") as far:
        config = f"peers: {{far: {{proxy: '{far.url}', models: [mirror]}}}}"
        async with served(config, tmp_path) as hotseat:
            name = await stored(hotseat)
            told = heard(await asked(hotseat, chat(image_url(name))))

    assert told == chat(image_url(uri(PNG)))


async def test_a_body_has_its_bound_with_the_pictures_in_it(tmp_path: Path) -> None:
    """A hundred names are short, and a hundred pictures are not."""
    async with served(f"maxBodyBytes: 5000\n{CONFIG}", tmp_path) as hotseat:
        name = await stored(hotseat, PNG + b"x" * 3000)
        answer = await asked(hotseat, chat(image_url(name), image_url(name)))
        one = await asked(hotseat, chat(image_url(name)))

    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert one.status == 200


async def picture_server(raw: bytes, seen: list[str]) -> TestServer:
    async def give(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(body=raw)

    app = web.Application()
    app.router.add_get("/{name:.*}", give)
    server = TestServer(app)
    await server.start_server()
    return server


@pytest.mark.parametrize("model", ["mirror", "foreign"])
async def test_an_address_is_fetched_where_that_is_allowed(tmp_path: Path, model: str) -> None:
    """The worker gets the picture, whoever it is; one that is none is refused before a swap.

    What is named twice is asked for once.
    """
    seen: list[str] = []
    good, bad = await picture_server(PNG, seen), await picture_server(b"<html>", seen)
    async with served(f"fetch_images: {{allow: [127.0.0.1]}}\n{CONFIG}", tmp_path) as hotseat:
        refused = await asked(hotseat, chat(image_url(str(bad.make_url("/b"))), model=model))
        running = await hotseat.running()
        part = image_url(str(good.make_url("/a")))
        told = heard(await asked(hotseat, chat(part, part, model=model)))
    await good.close()
    await bad.close()

    assert told == chat(*[image_url(uri(PNG))] * 2, model=model)
    assert (refused.status, refused.error["param"]) == (400, "messages.0.content.0")
    assert refused.error["code"] == "image_fetch_failed"
    assert (seen, running) == (["/b", "/a"], {})


async def test_pictures_are_remembered_where_that_is_wished(tmp_path: Path) -> None:
    """The answer names them, so that the next turn need not bring them again."""
    other = picture(caption="y")
    async with served(f"files: {{remember: true}}\n{CONFIG}", tmp_path) as hotseat:
        parts = [image_url(uri(PNG)), image_url(uri(b"none")), image_url(uri(other))]
        first = await asked(hotseat, chat(*parts))
        one, none, two = first.headers["X-Hotseat-Files"].split(", ")
        told = heard(await asked(hotseat, chat(image_url(two), image_url(one))))

    assert heard(first) == chat(*parts)
    assert none == "-"
    assert told == chat(image_url(uri(other)), image_url(uri(PNG)))


async def test_the_names_of_what_is_remembered_fit_into_a_header(tmp_path: Path) -> None:
    """A chat with more pictures is served all the same, and the first ones are remembered."""
    async with served(f"files: {{remember: true}}\n{CONFIG}", tmp_path) as hotseat:
        parts = [image_url(uri(picture(caption=str(number)))) for number in range(300)]
        answer = await asked(hotseat, chat(*parts))

    assert heard(answer) == chat(*parts)
    assert len(answer.headers["X-Hotseat-Files"].split(", ")) == 100


async def test_the_names_of_what_is_remembered_are_for_who_asked(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Who looks at the requests under way does not learn what leads to another one's picture."""
    held = gate()
    config = "files: {remember: true}\nmodels: {a: {echo: {}}}"
    document = chat(image_url(uri(PNG)), model="a", stream=True, echo={"gate": str(held.path)})
    async with (
        served(config, tmp_path) as hotseat,
        hotseat.session.post(CHAT, json=document) as response,
    ):
        [flight] = (await hotseat.get("/api/inflight")).body["requests"]
        await held.pass_one()
        await response.read()

    assert response.headers["X-Hotseat-Files"].startswith("file-")
    assert flight["resp_headers"]["X-Hotseat-Files"] == "[REDACTED]"


async def test_nothing_is_remembered_unasked(hotseat: Hotseat) -> None:
    """What a chat brings is gone with it."""
    answer = await asked(hotseat, chat(image_url(uri(PNG))))
    kept = await hotseat.get("/v1/files")

    assert heard(answer) == chat(image_url(uri(PNG)))
    assert "X-Hotseat-Files" not in answer.headers
    assert kept.body["data"] == []


async def test_a_large_picture_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """Of 16 MiB that a request names, the proxy holds a few at a time."""
    raw = PNG + b"x" * (16 << 20)
    async with spawned("models: {painter: {echo: {}}}", tmp_path) as (hotseat, process):
        name = await stored(hotseat, raw)
        small = await asked(hotseat, {"model": "painter", "prompt": "x"}, PAINT)
        before = psutil.Process(process.pid).memory_info().rss
        document = {"model": "painter", "prompt": "x", "image": name}
        answer = await asked(hotseat, document, PAINT)
        peak = peak_of(process.pid)

    assert small.status == 200
    assert answer.body["received_bytes"] == len(json.dumps({**document, "image": uri(raw)}))
    assert peak - before < 8 << 20
