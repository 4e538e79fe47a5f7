"""OpenAI's Files API for pictures, as the openai client speaks it, and what others send."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.proxy.served import Answer, Hotseat, served, spawned

PNG = b"\x89PNG\r\n\x1a\n" + b"." * 100
GIF = b"GIF89a" + b"." * 100
CONFIG = "{models: {a: {echo: {}}}}"
BOUNDARY = "b"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def files_in(folder: Path) -> list[str]:
    """Name what is kept, in the folder that a test's proxy has for it."""
    found = folder / "state/hotseat/files"
    return sorted(path.name for path in found.iterdir() if path.suffix != ".json")


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def sent(hotseat: Hotseat, raw: bytes, purpose: bytes = b"vision") -> Answer:
    body = form(part("purpose", purpose), part("file", raw, '; filename="x.png"'))
    return await hotseat.post("/v1/files", data=io.BytesIO(body), headers=FORM)


async def test_the_openai_client_keeps_finds_lists_reads_and_drops_a_picture(
    tmp_path: Path,
) -> None:
    """All that its Files API offers, byte for byte."""
    async with served(CONFIG, tmp_path) as hotseat:
        files = hotseat.openai().files
        cat = await files.create(file=("cat.png", PNG), purpose="vision")
        again = await files.create(file=("again.png", PNG), purpose="user_data")
        gif = await files.create(
            file=("fun.gif", GIF),
            purpose="vision",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        found = await files.retrieve(cat.id)
        content = await files.content(cat.id)
        pages = [[one.id async for one in files.list(limit=1, order=o)] for o in ("asc", "desc")]
        vision = [one.filename async for one in files.list(purpose="vision")]
        kept = files_in(tmp_path)
        dropped = await files.delete(cat.id)
        with pytest.raises(openai.NotFoundError) as gone:
            await files.retrieve(cat.id)

    assert cat.id == again.id == found.id == f"file-{hashlib.sha256(PNG).hexdigest()[:32]}"
    assert (cat.bytes, cat.filename, cat.purpose, cat.status) == (
        108,
        "cat.png",
        "vision",
        "processed",
    )
    assert (found.filename, found.purpose) == ("again.png", "user_data")
    assert gif.expires_at == gif.created_at + 3600
    assert cat.expires_at == cat.created_at + 24 * 3600
    assert content.read() == PNG
    assert pages == [[cat.id, gif.id], [gif.id, cat.id]]
    assert vision == ["fun.gif"]
    assert kept == sorted([cat.id, gif.id])
    assert (dropped.id, dropped.deleted) == (cat.id, True)
    assert gone.value.code == "file_not_found"
    assert gone.value.type == "invalid_request_error"


async def test_a_picture_is_served_as_what_it_is(tmp_path: Path) -> None:
    """Whatever its sender called it: no browser takes it for a page. HEAD tells of it."""
    async with served(CONFIG, tmp_path) as hotseat:
        body = form(
            part("file", GIF, '; filename="../../x.html"\r\nContent-Type: text/html'),
            part("purpose", b"vision"),
        )
        stored = (await hotseat.post("/files", data=body, headers=FORM)).body
        async with hotseat.session.get(f"/v1/files/{stored['id']}/content") as response:
            raw = await response.read()
        async with hotseat.session.head(f"/files/{stored['id']}/content") as head:
            nothing = await head.read()

    assert stored["filename"] == "x.html"
    assert (raw, nothing) == (GIF, b"")
    for one in (response, head):
        assert (one.status, one.content_type, one.content_length) == (200, "image/gif", len(GIF))
        assert one.headers["X-Content-Type-Options"] == "nosniff"


async def test_pictures_are_still_there_after_a_restart(tmp_path: Path) -> None:
    """In the user's state directory, of which a config says nothing."""
    async with served(CONFIG, tmp_path) as hotseat:
        stored = await sent(hotseat, PNG)
    async with served(CONFIG, tmp_path) as hotseat:
        listed = await hotseat.get("/v1/files")
        async with hotseat.session.get(f"/v1/files/{stored.body['id']}/content") as response:
            raw = await response.read()

    assert listed.body == {
        "object": "list",
        "data": [stored.body],
        "first_id": stored.body["id"],
        "last_id": stored.body["id"],
        "has_more": False,
    }
    assert raw == PNG


async def test_each_key_lists_and_drops_its_own(tmp_path: Path) -> None:
    """Who was given a reference may read it under a key of this server's; nobody without one."""
    config = "{apiKeys: [one, two], models: {a: {echo: {}}}}"
    async with served(config, tmp_path) as hotseat:
        one, two = (
            openai.AsyncOpenAI(base_url=f"{hotseat.url}/v1", api_key=key, max_retries=0)
            for key in ("one", "two")
        )
        hotseat.clients += [one, two]
        mine = await one.files.create(file=("mine.png", PNG), purpose="vision")
        lists = [[f.filename async for f in client.files.list()] for client in (one, two)]
        read = await two.files.content(mine.id)
        seen = await two.files.retrieve(mine.id)
        with pytest.raises(openai.NotFoundError):
            await two.files.delete(mine.id)
        strangers = [
            await hotseat.get(path)
            for path in ("/v1/files", f"/v1/files/{mine.id}", f"/files/{mine.id}/content")
        ]
        unsent = await sent(hotseat, GIF)

    assert lists == [["mine.png"], []]
    assert read.read() == PNG
    assert seen.filename == "picture.png"
    assert [answer.status for answer in (*strangers, unsent)] == [401] * 4


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (form(part("file", PNG)), "invalid_value", "purpose"),
        (form(part("file", PNG), part("purpose", b"fine-tune")), "invalid_value", "purpose"),
        (form(part("purpose", b"vision")), "missing_file", "file"),
        (form(part("purpose", b"vision"), part("file", b"")), "not_a_picture", "file"),
        (form(part("purpose", b"vision"), part("file", b"%PDF-1.7")), "not_a_picture", "file"),
        (form(part("file", PNG), part("file", GIF)), "invalid_multipart", "file"),
        (form(part("purpose", b"v" * 1000)), "invalid_value", "purpose"),
        (
            form(
                part("purpose", b"vision"),
                part("file", PNG),
                part("expires_after[anchor]", b"created_at"),
                part("expires_after[seconds]", b"60"),
            ),
            "invalid_value",
            "expires_after",
        ),
        (
            form(
                part("purpose", b"vision"), part("file", PNG), part("expires_after[anchor]", b"x")
            ),
            "invalid_value",
            "expires_after",
        ),
        (part("purpose", b"vision") + part("file", PNG), "invalid_multipart", None),
        (b"no form at all", "invalid_multipart", None),
        (b"", "invalid_multipart", None),
    ],
)
async def test_a_bad_upload_is_told_and_leaves_nothing(
    tmp_path: Path, body: bytes, code: str, param: str | None
) -> None:
    """Each mistake in its own words; none is kept, nor half of one."""
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.post("/v1/files", data=body, headers=FORM)
        kept = files_in(tmp_path)

    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)
    assert kept == []


async def test_what_is_no_form_is_told_what_to_send(tmp_path: Path) -> None:
    """JSON, and a form without a boundary."""
    async with served(CONFIG, tmp_path) as hotseat:
        answers = [
            await hotseat.post("/v1/files", json={"file": "x"}),
            await hotseat.post(
                "/v1/files", data=b"", headers={"Content-Type": "multipart/form-data"}
            ),
        ]

    assert [(one.status, one.error["code"]) for one in answers] == [(400, "invalid_multipart")] * 2
    assert "purpose" in answers[0].error["message"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=10001", "order=up", "after=file-0", "limit=%D9%A1"]
)
async def test_a_bad_list_is_told(tmp_path: Path, query: str) -> None:
    """By the name of the parameter."""
    async with served(CONFIG, tmp_path) as hotseat:
        answer = await hotseat.get(f"/v1/files?{query}")

    assert (answer.status, answer.error["param"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize(
    "reference", ["file-0", f"file-{'0' * 32}", "..%2f..%2fetc%2fpasswd", "file-%00", "x.json"]
)
async def test_an_unknown_file_is_not_found(tmp_path: Path, reference: str) -> None:
    """Whatever it is called; nothing but pictures of the store is ever opened."""
    async with served(CONFIG, tmp_path) as hotseat:
        answers = [
            await hotseat.get(f"/v1/files/{reference}"),
            await hotseat.get(f"/v1/files/{reference}/content"),
        ]
        async with hotseat.session.delete(f"/v1/files/{reference}") as response:
            answers.append(Answer(response.status, await response.json(), {}))

    assert [(one.status, one.error["code"]) for one in answers] == [(404, "file_not_found")] * 3


async def test_a_file_that_is_too_large_is_refused_in_words(tmp_path: Path) -> None:
    """By its own limit, and by that of all bodies."""
    config = "{files: {maxFileBytes: 1MiB}, maxBodyBytes: 3000000, models: {a: {echo: {}}}}"
    async with served(config, tmp_path) as hotseat:
        whole = await sent(hotseat, PNG.ljust(1 << 20, b"."))
        large = await sent(hotseat, PNG.ljust((1 << 20) + 1, b"."))
        huge = await sent(hotseat, PNG.ljust(4 << 20, b"."))
        kept = files_in(tmp_path)

    assert whole.status == 200
    assert (large.status, large.error["code"]) == (413, "file_too_large")
    assert "1.0 MiB" in large.error["message"]
    assert (huge.status, huge.error["code"]) == (413, "body_too_large")
    assert kept == [whole.body["id"]]


def most_memory_kib(pid: int) -> int:
    """Tell how much memory a process has had at most."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


async def test_a_large_upload_goes_to_the_disk_and_not_to_memory(tmp_path: Path) -> None:
    """It takes a part of its size."""

    async def large() -> AsyncIterator[bytes]:
        yield part("purpose", b"vision") + part("file", PNG)[:-2]
        for _ in range(40):
            yield bytes(1 << 20)
        yield b"\r\n" + form()

    config = "{files: {maxFileBytes: 200MiB}, models: {a: {echo: {}}}}"
    async with spawned(config, tmp_path) as (hotseat, process):
        await sent(hotseat, PNG)
        before_kib = most_memory_kib(process.pid)
        answer = await hotseat.post("/v1/files", data=large(), headers=FORM)
        grown_kib = most_memory_kib(process.pid) - before_kib

    assert answer.status == 200
    assert answer.body["bytes"] == len(PNG) + (40 << 20)
    assert grown_kib < 15 << 10


async def test_a_folder_of_its_own_may_be_named_beside_the_config(tmp_path: Path) -> None:
    """With both spellings of the keys."""
    config = (
        "{files: {dir: pictures, max_bytes: 1MiB, maxFileBytes: 1MiB}, models: {a: {echo: {}}}}"
    )
    async with served(config, tmp_path) as hotseat:
        stored = await sent(hotseat, PNG)

    assert (tmp_path / "pictures" / stored.body["id"]).read_bytes() == PNG


async def test_where_nothing_can_be_kept_the_rest_goes_on(tmp_path: Path) -> None:
    """The proxy starts and serves; an upload says what is wrong, and is not tried again."""
    (tmp_path / "taken").write_text("")
    config = "{files: {dir: taken}, models: {a: {echo: {}}}}"
    async with served(config, tmp_path) as hotseat:
        told = await hotseat.log_line("pictures_not_kept")
        answer = await sent(hotseat, PNG)
        chat = await hotseat.chat("a")
        listed = await hotseat.get("/v1/files")

    assert str(tmp_path / "taken") in told
    assert (answer.status, answer.error["code"]) == (507, "not_kept")
    assert answer.headers["x-should-retry"] == "false"
    assert chat.status == 200
    assert listed.body["data"] == []
