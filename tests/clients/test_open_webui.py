"""Open WebUI: its two engines for pictures, request by request and field by field."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.clients.drawn import decoded, picture
from tests.proxy.served import Hotseat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]
KEYLESS = {"Authorization": "Bearer "}
PLAIN = {"authorization": ""}
BASIC = {"authorization": "Basic dXNlcjpwYXNz"}
ASKED = {
    "model": "painter",
    "prompt": "a red circle",
    "n": 1,
    "size": "64x64",
    "response_format": "b64_json",
}


async def test_engine_openai_gets_base64_and_no_link(hotseat: Hotseat) -> None:
    """It would prefer a link, and then refuse to follow one to a private address."""
    answer = await hotseat.post("/v1/images/generations", json=ASKED, headers=KEYLESS)
    [told] = answer.body["data"]

    assert decoded(told["b64_json"]).format == "PNG"  # it takes all base64 for PNG
    assert "url" not in told


async def test_engine_openai_without_a_format_gets_the_same(hotseat: Hotseat) -> None:
    """It leaves that out for a model whose name it takes for one of OpenAI's own."""
    asked = {**ASKED, "model": "gpt-image-1", "size": "auto"}
    del asked["response_format"]
    answer = await hotseat.post("/v1/images/generations", json=asked, headers=KEYLESS)

    assert answer.body["data"][0].keys() >= {"b64_json"}
    assert "url" not in answer.body["data"][0]


@pytest.mark.parametrize("field", ["image", "image[]"])
async def test_engine_openai_edits_by_a_form(hotseat: Hotseat, field: str) -> None:
    """One picture as `image`, several as `image[]`; the background is of no account here."""
    form = aiohttp.FormData()
    for name in ("model", "prompt", "n", "size", "response_format"):
        form.add_field(name, str(ASKED[name]))
    form.add_field("background", "auto")
    for number in range(1 if field == "image" else 2):
        form.add_field(field, picture(), filename=f"{number}.png", content_type="image/png")
    answer = await hotseat.post("/v1/images/edits", data=form, headers=KEYLESS)

    assert decoded(answer.body["data"][0]["b64_json"]).size == (64, 64)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"model": "None"}, "no model is named 'None'"),
        ({"model": ""}, "the body must name a model"),
        ({"size": "banana"}, "size is WIDTHxHEIGHT"),
    ],
)
async def test_a_mistake_is_in_the_reason_phrase(
    hotseat: Hotseat, said: dict[str, str], told: str
) -> None:
    """Its users see nothing else; what is not set goes out as nothing, or as a word for it."""
    async with hotseat.session.post("/v1/images/generations", json={**ASKED, **said}) as answer:
        assert answer.status in (400, 404)
        assert answer.reason is not None
        assert told in answer.reason


@pytest.mark.parametrize("headers", [PLAIN, BASIC])
async def test_engine_automatic1111_paints(hotseat: Hotseat, headers: dict[str, str]) -> None:
    """Options, models, the options back with another model, and pictures without naming one."""
    options = (await hotseat.get("/sdapi/v1/options")).body
    async with hotseat.session.get("/sdapi/v1/sd-models", headers=headers) as response:
        models = await response.json()
    chosen = {**options, "sd_model_checkpoint": models[0]["title"]}
    set_ = await hotseat.post("/sdapi/v1/options", json=chosen, headers=headers)
    asked: dict[str, Any] = {"prompt": "x", "batch_size": 2, "width": 64, "height": 96}
    asked |= {"steps": 2, "negative_prompt": "grey"}
    answer = await hotseat.post("/sdapi/v1/txt2img", json=asked, headers=headers)

    assert options["sd_model_checkpoint"] == "painter"
    assert [(one["title"], one["model_name"]) for one in models] == [("painter", "painter")]
    assert set_.status == 200
    assert [decoded(one).size for one in answer.body["images"]] == [(64, 96)] * 2
    assert answer.body["info"]
