"""What is changed in a request before its worker sees it, and what is not."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.llama_swap.house import house, told
from tests.proxy.served import Hotseat, served

CONFIG = """
models:
  a:
    cmd: "ECHO --tells"
    aliases: [al]
    filters:
      stripParams: "temperature, top_k,model , both"
      setParams: {min_p: 0.1, both: set, model: never, options.deep.er: 5, list: [1, two]}
      setParamsByID:
        "a:high": {effort: high, min_p: 0.9}
        "${MODEL_ID}:low": {effort: low}
  renamed: {cmd: "ECHO --tells", useModelName: org/real, aliases: [other]}
  plain: {cmd: "ECHO --tells"}
groups: {all: {swap: false, members: [a, renamed, plain]}}
"""
CHAT = "/v1/chat/completions"
PICTURE = base64.b64encode(bytes(200_000)).decode()

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve models that tell what arrived after the filters."""
    async with served(house(CONFIG), tmp_path_factory.mktemp("filters")) as one:
        yield one


async def arrived(hotseat: Hotseat, model: str, **fields: Any) -> dict[str, Any]:
    seen = await told(hotseat, CHAT, json={"model": model, "messages": [], **fields})
    body: dict[str, Any] = seen.json
    return body


async def test_parameters_are_stripped(hotseat: Hotseat) -> None:
    """Those of the list, of the top alone; the rest stays."""
    body = await arrived(hotseat, "a", temperature=1, top_k=2, top_p=3, in_it={"top_k": 4})

    assert not {"temperature", "top_k"} & body.keys()
    assert (body["top_p"], body["in_it"]) == (3, {"top_k": 4})


async def test_the_model_is_not_stripped_nor_set(hotseat: Hotseat) -> None:
    """Whatever the filters say of it."""
    assert (await arrived(hotseat, "a"))["model"] == "a"


async def test_parameters_are_set(hotseat: Hotseat) -> None:
    """Over what the client says, with their types, and after the stripping."""
    body = await arrived(hotseat, "a", min_p=0.5, both="mine")

    assert (body["min_p"], body["both"], body["list"]) == (0.1, "set", [1, "two"])


async def test_a_dot_in_a_parameter_leads_inside(hotseat: Hotseat) -> None:
    """What stands beside it there stays."""
    body = await arrived(hotseat, "a", options={"mine": 1, "deep": {"est": 2}})

    assert body["options"] == {"mine": 1, "deep": {"est": 2, "er": 5}}


@pytest.mark.parametrize(
    ("asked", "effort", "min_p"),
    [("a:high", "high", 0.9), ("a:low", "low", 0.1), ("al", None, 0.1)],
)
async def test_parameters_may_hang_on_the_name(
    hotseat: Hotseat, asked: str, effort: str | None, min_p: float
) -> None:
    """Each name of setParamsByID is an alias with its own, set last."""
    body = (
        await arrived(hotseat, asked, effort="mine") if effort else await arrived(hotseat, asked)
    )

    assert (body.get("effort"), body["min_p"]) == (effort, min_p)
    assert body["model"] == asked


@pytest.mark.parametrize("asked", ["renamed", "other"])
async def test_use_model_name_is_what_the_worker_sees(hotseat: Hotseat, asked: str) -> None:
    """For workers that know their model by another name."""
    assert (await arrived(hotseat, asked))["model"] == "org/real"


async def test_an_alias_is_passed_on_as_it_was_said(hotseat: Hotseat) -> None:
    """Without useModelName the worker sees the client's own word."""
    assert (await arrived(hotseat, "al"))["model"] == "al"


async def test_use_model_name_holds_for_forms(hotseat: Hotseat) -> None:
    """The field alone changes; the filters of parameters are for JSON."""
    raw = (
        b'--xx\r\nContent-Disposition: form-data; name="temperature"\r\n\r\n1\r\n'
        b'--xx\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n--xx--\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    seen = await told(hotseat, "/v1/images/edits", data=raw, headers=headers)

    assert seen.body == raw.replace(b"other", b"org/real")
    assert seen.headers["content-length"] == str(len(seen.body))


async def test_a_body_without_filters_is_not_touched(hotseat: Hotseat) -> None:
    """Not a byte: blanks, order, numbers and escapes are the client's."""
    raw = (
        b'{ "x":1.0,"messages":[],  "model" : "plain", "s":"\\u00e9", "big":12345678901234567890 }'
    )
    headers = {"Content-Type": "application/json"}
    seen = await told(hotseat, CHAT, data=raw, headers=headers)

    assert seen.body == raw


async def test_what_filters_do_not_name_keeps_its_bytes(hotseat: Hotseat) -> None:
    """Only the model's name is exchanged in a large body, and large numbers stay exact."""
    head, tail = b'{"big": 12345678901234567890, "pi": 3.10,  "model": ', b', "picture": "'
    raw = head + b'"other"' + tail + PICTURE.encode() + b'"}'
    headers = {"Content-Type": "application/json"}
    seen = await told(hotseat, CHAT, data=raw, headers=headers)

    assert seen.body == raw.replace(b'"other"', b'"org/real"')


@pytest.mark.parametrize("path", ["/v1/responses", "/infill", "/sdapi/v1/txt2img", "/v1/videos"])
async def test_filters_hold_on_every_path(hotseat: Hotseat, path: str) -> None:
    """Wherever a JSON body names the model."""
    seen = await told(hotseat, path, json={"model": "a", "top_k": 1})

    assert "top_k" not in seen.json
    assert seen.json["min_p"] == 0.1
