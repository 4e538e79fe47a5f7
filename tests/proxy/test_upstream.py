"""/upstream and /comfyui: who is meant by a path, what of it goes on, and what must not load."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio
from yarl import URL

from tests.proxy.scripted import command
from tests.proxy.served import Hotseat, served, spawned

CONFIG = """
models:
  plain: {aliases: [short, "with space"], echo: {}}
  org/seer: {echo: {}}
  org/seer/deep: {echo: {}}
  comfyui_auto: {echo: {}}
  other: {echo: {}}
profiles:
  swapped: {pins: {short: other, gone: ""}}
"""
UPLOAD_BYTES = 40_000_000

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve one proxy for all tests of this module."""
    async with served(CONFIG, tmp_path_factory.mktemp("upstream")) as one:
        yield one


async def seen_by(
    hotseat: Hotseat, path: str | URL, method: str = "GET", **more: Any
) -> dict[str, Any]:
    """Ask, and give what the worker has seen."""
    async with hotseat.session.request(method, path, **more) as answer:
        assert answer.status == 200
        seen: dict[str, Any] = await answer.json()
        return seen


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/upstream/plain/", "/"),
        ("/upstream/plain/a%2Fb/%20c?q=1%26&q=%2F", "/a%2Fb/%20c?q=1%26&q=%2F"),
        ("/upstream/plain//double//", "//double//"),
        ("/upstream/plain/a?", "/a"),
        ("/upstream/plain/a/..%2f../%00", "/a/..%2f../%00"),
        ("/upstream/with%20space/x", "/x"),
        ("/upstream/org/seer/x", "/x"),
        ("/upstream/org%2Fseer/x", "/x"),
        ("/upstream/org%2fseer/deep/x", "/x"),
        ("/upstream/org/seer/deeper", "/deeper"),
        ("/upstream/short/upstream/plain/x", "/upstream/plain/x"),
    ],
)
async def test_the_rest_goes_on_as_it_came(hotseat: Hotseat, path: str, seen: str) -> None:
    """Escapes and queries, behind the longest name that fits."""
    told = await seen_by(hotseat, URL(hotseat.url + path, encoded=True))

    assert told["path"] == seen


async def test_the_longest_name_wins(hotseat: Hotseat) -> None:
    """Though a shorter one fits as well."""
    await seen_by(hotseat, "/upstream/org/seer/deep/x")

    assert set(await hotseat.running()) == {"org/seer/deep"}


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308), ("PUT", 308)]
)
async def test_a_bare_name_leads_to_its_slash(hotseat: Hotseat, method: str, status: int) -> None:
    """Nothing is loaded for that, and the query is kept."""
    await hotseat.chat("other")
    async with hotseat.session.request(
        method, "/upstream/org%2Fseer?a=%20b", allow_redirects=False
    ) as answer:
        assert answer.status == status
        assert answer.headers["Location"] == "/upstream/org%2Fseer/?a=%20b"
    assert set(await hotseat.running()) == {"other"}


@pytest.mark.parametrize("path", ["/upstream/nope/x", "/upstream/", "/upstream/org/x"])
async def test_unknown_names_are_404(hotseat: Hotseat, path: str) -> None:
    """As JSON, with what there is."""
    answer = await hotseat.get(path)

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_no_name_is_not_a_name_that_is_taken_away(hotseat: Hotseat) -> None:
    """Nobody has a profile at fault for an empty one."""
    answer = await hotseat.get("/upstream//plain/x")

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "profile" not in answer.error["message"]


async def test_a_path_of_thousands_of_parts_holds_nobody_up(hotseat: Hotseat) -> None:
    """Only so many can be a name."""
    path = URL(hotseat.url + "/upstream/plain" + "/%41" * 1900, encoded=True)

    for _ in range(40):
        told = await seen_by(hotseat, path)

    assert told["path"] == "/%41" * 1900


async def test_an_encoding_that_nobody_undoes_is_told_on(hotseat: Hotseat) -> None:
    """Of a body that was decoded on its way in it is not."""
    for encoding, body in (("x-gzip", b"raw"), ("gzip", gzip.compress(b"raw"))):
        headers = {"Content-Encoding": encoding}
        told = await seen_by(hotseat, "/upstream/plain/x", "PUT", data=body, headers=headers)

        assert base64.b64decode(told["body"]) == b"raw"
        assert dict(told["headers"]).get("Content-Encoding", "gzip") == encoding


async def test_a_post_asks_for_what_its_tokens_can_be_read_in(hotseat: Hotseat) -> None:
    """Other requests ask for any encoding that the client knows."""
    headers = {"Accept-Encoding": "br, gzip;q=0.5, zstd"}
    posted = await seen_by(hotseat, "/upstream/plain/x", "POST", data=b"{}", headers=headers)
    got = await seen_by(hotseat, "/upstream/plain/x", headers=headers)

    assert dict(posted["headers"])["Accept-Encoding"] == "gzip;q=0.5"
    assert dict(got["headers"])["Accept-Encoding"] == "br, gzip;q=0.5, zstd"


async def test_an_escaped_line_break_is_none_to_us(tmp_path: Path) -> None:
    """It stays in the path, and its escapes with it."""
    async with served(f"models: {{a: {{cmd: {command()}}}}}", tmp_path) as one:
        target = URL(f"{one.url}/upstream/a/x%0d%0AX-Odd:1", encoded=True)
        told = await seen_by(one, target)

    assert told["path"] == "/x%0d%0AX-Odd:1"


async def test_only_a_command_hears_by_which_name_we_were_asked(
    hotseat: Hotseat, tmp_path: Path
) -> None:
    """Pages compare it with their origin; over a websocket too."""
    headers = {"Host": "gpu.example:8080"}
    async with served(f"models: {{a: {{cmd: {command()}}}}}", tmp_path) as one:
        told = await seen_by(one, "/upstream/a/x", headers=headers)
        async with one.session.ws_connect("/upstream/a/talk", headers=headers) as socket:
            await socket.send_str("host")
            heard = await socket.receive_str()
    bundled = await seen_by(hotseat, "/upstream/plain/x", headers=headers)

    assert told["host"] == heard == "gpu.example:8080"
    assert "gpu.example" not in str(bundled)


async def test_any_method_and_body_passes(hotseat: Hotseat) -> None:
    """Even what is no JSON, and no POST."""
    raw = bytes(range(256))
    told = await seen_by(hotseat, "/upstream/plain/x", "PATCH", data=io.BytesIO(raw))

    assert told["method"] == "PATCH"
    assert base64.b64decode(told["body"]) == raw


async def test_what_a_page_brings_along_loads_nothing(hotseat: Hotseat) -> None:
    """upstream.ignorePaths: 409 while the model is away, served while it is there."""
    await hotseat.chat("other")
    refused = await hotseat.get("/upstream/plain/app.js?v=1")
    assert (refused.status, refused.error["code"]) == (409, "model_not_ready")
    assert "ignorePaths" in refused.error["message"]
    assert set(await hotseat.running()) == {"other"}

    await seen_by(hotseat, "/upstream/plain/page")
    assert (await seen_by(hotseat, "/upstream/plain/app.js?v=1"))["path"] == "/app.js?v=1"


async def test_pins_of_the_active_profile_count(hotseat: Hotseat) -> None:
    """Aliases lead elsewhere while it is active."""
    async with hotseat.session.put("/api/profiles/active", json={"name": "swapped"}) as answer:
        assert answer.status == 200
    await seen_by(hotseat, "/upstream/short/x")
    assert set(await hotseat.running()) == {"other"}
    assert (await hotseat.get("/upstream/gone/x")).status == 404

    async with hotseat.session.put("/api/profiles/active", json={"name": None}) as answer:
        assert answer.status == 200
    await seen_by(hotseat, "/upstream/short/x")
    assert set(await hotseat.running()) == {"plain"}


async def test_comfyui_has_a_path_of_its_own(hotseat: Hotseat) -> None:
    """Only its page loads it; what the page brings along does not."""
    await hotseat.chat("other")
    refused = await hotseat.get("/comfyui/api/queue")
    async with hotseat.session.get("/comfyui?a=1", allow_redirects=False) as bare:
        assert (bare.status, bare.headers["Location"]) == (301, "/comfyui/?a=1")
    assert (refused.status, set(await hotseat.running())) == (409, {"other"})

    page = await seen_by(hotseat, "/comfyui/")
    rest = await seen_by(hotseat, URL(f"{hotseat.url}/comfyui/api/queue?x=%2F", encoded=True))
    assert (page["path"], rest["path"]) == ("/", "/api/queue?x=%2F")
    assert set(await hotseat.running()) == {"comfyui_auto"}


async def test_comfyui_needs_its_model(tmp_path: Path) -> None:
    """Without one by that name there is nothing to be had."""
    async with served("models: {a: {echo: {}}}", tmp_path) as hotseat:
        answer = await hotseat.get("/comfyui/")

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


async def test_a_large_upload_costs_almost_no_memory(tmp_path: Path) -> None:
    """40 MB go through the proxy, and its peak grows by a few."""
    async with spawned(f"models: {{a: {{cmd: {command()}}}}}", tmp_path) as (hotseat, process):
        await seen_by(hotseat, "/upstream/a/count", "POST", data=b"x" * 100_000)
        before = peak_bytes(process.pid)
        told = await seen_by(
            hotseat, "/upstream/a/count", "POST", data=io.BytesIO(bytes(UPLOAD_BYTES))
        )
        grown = peak_bytes(process.pid) - before

    assert told["received_bytes"] == UPLOAD_BYTES
    assert grown < UPLOAD_BYTES / 4


def peak_bytes(pid: int) -> int:
    """Tell the most that the process has held so far."""
    assert psutil.pid_exists(pid)
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


async def test_a_peers_model_is_reached_and_counted(tmp_path: Path) -> None:
    """By its full name; like one of ours it is among what was asked."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    async with served("models: {a: {echo: {}}}", there) as far:
        address = f"{{proxy: '{far.url}/upstream/a', models: [a]}}"
        async with served(
            f"{{peers: {{far: {address}}}, models: {{b: {{echo: {{}}}}}}}}", here
        ) as one:
            target = URL(f"{one.url}/upstream/far/a/x%2Fy?q=%26", encoded=True)
            told = await seen_by(one, target, "POST", data=b"{}")
            [entry] = (await one.get("/api/metrics/activity")).body["data"]
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await one.session.ws_connect("/upstream/far/a/talk")
            metrics = (await one.get("/metrics")).body

    assert told["path"] == "/x%2Fy?q=%26"
    assert (entry["model"], entry["resp_status_code"]) == ("far/a", 200)
    assert 'hotseat_requests_total{model="far/a",status="200"} 1.0' in metrics
    assert caught.value.status == 400
