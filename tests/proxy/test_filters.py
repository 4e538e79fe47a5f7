"""How a request names its model, and what is changed of it on its way, byte for byte."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from yarl import URL

from tests.llama_swap.house import as_told, house, told
from tests.proxy.served import Hotseat, served, spawned

CONFIG = """
models:
  org/plain: {cmd: "ECHO --tells"}
  renamed:
    cmd: "ECHO --tells"
    useModelName: the name/of it
    aliases: [short]
    filters: {stripParams: "seed", setParams: {top_k: 1}, setParamsByID: {"short": {top_k: 2}}}
  bundled: {echo: {}}
selectors: {which: {strategy: pin, targets: [org/plain]}}
"""
CHAT = "/v1/chat/completions"
AUDIO = "/v1/audio/transcriptions"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
UPLOAD_BYTES = 40 << 20

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve workers that tell what arrived."""
    async with served(house(CONFIG), tmp_path_factory.mktemp("filters")) as one:
        yield one


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "text/plain"}, FORM, {"Content-Type": "APPLICATION/JSON"}]
)
async def test_json_is_json_whatever_it_is_called(
    hotseat: Hotseat, headers: dict[str, str]
) -> None:
    """Clients forget the content type, and curl calls everything a form."""
    raw = b' {"model":"org/plain","messages":[]}'
    async with hotseat.session.post(
        CHAT, data=raw, headers=headers, skip_auto_headers=["Content-Type"]
    ) as answer:
        assert answer.status == 200


async def test_a_urlencoded_form_names_its_model(hotseat: Hotseat) -> None:
    """Its value is exchanged, and no other byte."""
    plain = b"prompt=a%20b+c&model=org%2Fplain&n=1"
    renamed = b"model=short&prompt=%C3%A9&seed=1&model=short"
    seen = await told(hotseat, CHAT, data=plain, headers=FORM)
    other = await told(hotseat, CHAT, data=renamed, headers=FORM)

    assert seen.body == plain
    assert other.body == renamed.replace(b"short", b"the+name%2Fof+it")


@pytest.mark.parametrize("path", ["/props", "/v1/audio/voices"])
async def test_a_get_names_its_model_in_its_query(hotseat: Hotseat, path: str) -> None:
    """Every other part of the query stays as it was, and a missing name is told."""
    query = "a=%20b&model=org%2Fplain&c"
    async with hotseat.session.get(URL(f"{hotseat.url}{path}?{query}", encoded=True)) as answer:
        seen = as_told(await answer.json())
    other = await told(hotseat, f"{path}?x=1&model=renamed", "GET")
    lost = await hotseat.get(path)

    assert seen.path == f"{path}?{query}"
    assert other.path == f"{path}?x=1&model=the+name%2Fof+it"
    assert (lost.status, lost.error["code"]) == (400, "missing_model")
    assert (
        "the query must name a model; there are: org/plain, renamed, bundled, which"
        in (lost.error["message"])
    )


async def test_our_own_fields_go_with_the_same_edit(hotseat: Hotseat) -> None:
    """Stripped, renamed and set at once; what is left keeps its place and its bytes."""
    raw = (
        b'{"keep_alive": "5m", "x": 1.50, "model": "short",\n "seed":7 ,"priority":1,"top_k":9,'
        b' "y":{"model":"z"}}'
    )
    seen = await told(hotseat, CHAT, data=raw, headers=JSON)

    assert seen.body == (b'{ "x": 1.50, "model": "the name/of it","top_k":2, "y":{"model":"z"}}')


async def test_what_a_selector_chose_is_named(hotseat: Hotseat) -> None:
    """The worker does not know the selector's name."""
    raw = b'{"model":  "which", "messages":[] }'
    seen = await told(hotseat, CHAT, data=raw, headers=JSON)

    assert seen.body == raw.replace(b"which", b"org/plain")


async def test_upstream_changes_nothing(hotseat: Hotseat) -> None:
    """What is asked of a worker directly arrives as it was said."""
    raw = b'{"model":"short","seed":1,"keep_alive":1}'
    seen = await told(hotseat, f"/upstream/renamed{CHAT}", data=raw, headers=JSON)

    assert seen.body == raw


async def test_an_unknown_path_with_a_model_is_the_workers(hotseat: Hotseat) -> None:
    """If it is a command of the user's: of our own workers we know that they have no such path."""
    seen = await told(hotseat, "/v1/tokens?x=1", json={"model": "org/plain"})
    ours = await hotseat.post("/v1/tokens", json={"model": "bundled"})
    nobody = await hotseat.post("/v1/tokens", json={"text": "x"})

    assert seen.path == "/v1/tokens?x=1"
    assert (ours.status, ours.error["code"]) == (400, "model_cannot")
    assert (nobody.status, nobody.error["code"]) == (404, "not_found")


def a_form(upload: bytes = b"\x00\r\n--y") -> bytes:
    """Write a form as no library of ours would: odd headers, odd order, a file before the name."""
    return (
        b"\r\n--x\r\nContent-Type: audio/x-wav; q=1\r\nX-Odd:  two  blanks\r\n"
        b'content-disposition: form-data; name="file"; filename="a \\"b\\".wav"\r\n\r\n'
        + upload
        + b'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n'
        b"Content-Type: text/plain; charset=utf-8\r\n\r\nshort\r\n"
        b'--x\r\nContent-Disposition: form-data; name="seed"\r\n\r\n1\r\n--x--\r\nepilogue'
    )


async def test_a_form_keeps_every_other_byte(hotseat: Hotseat) -> None:
    """Headers of parts, their order and the file itself; and its length is right."""
    raw = a_form()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    seen = await told(hotseat, AUDIO, data=raw, headers=headers)

    assert seen.body == raw.replace(b"\r\n\r\nshort\r\n", b"\r\n\r\nthe name/of it\r\n")
    assert seen.headers["content-type"] == "multipart/form-data; boundary=x"
    assert seen.headers["content-length"] == str(len(seen.body))


def peak_of(pid: int) -> int:
    """Tell the most memory that a process ever had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmHWM" in line)


async def test_a_large_upload_is_not_held_in_memory(tmp_path: Path) -> None:
    """Of 40 MiB that are renamed on their way only a few are ever in the proxy's memory."""
    config = "models: {painter: {useModelName: another-name, aliases: [short], echo: {}}}"
    raw = a_form(bytes(UPLOAD_BYTES))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with spawned(config, tmp_path) as (hotseat, process):
        small = await hotseat.post("/v1/images/edits", data=a_form(), headers=headers)
        before = psutil.Process(process.pid).memory_info().rss
        answer = await hotseat.post("/v1/images/edits", data=io.BytesIO(raw), headers=headers)
        peak = peak_of(process.pid)

    assert small.status == 200
    assert answer.body["received_bytes"] == len(raw) + len("another-name") - len("short")
    assert peak - before < 12 << 20
