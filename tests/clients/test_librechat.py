"""LibreChat's two tools: OpenAI's pictures by their own names, and AUTOMATIC1111's."""

from __future__ import annotations

import json
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
AXIOS = {"Accept": "application/json, text/plain, */*", "User-Agent": "axios/1.8.2"}
NODE = {"Accept": "application/json", "Authorization": "Bearer none", "X-Stainless-Lang": "js"}
ASKED: dict[str, Any] = {
    "model": "gpt-image-1",
    "prompt": "a red circle",
    "n": 1,
    "quality": "auto",
    "background": "auto",
    "size": "auto",
}


@pytest.mark.parametrize(("kind", "said"), [("PNG", {}), ("WEBP", {"output_format": "webp"})])
async def test_image_gen_oai_asks_by_openais_name(
    hotseat: Hotseat, kind: str, said: dict[str, str]
) -> None:
    """An alias makes that ours; `auto` is whatever the model does best."""
    answer = await hotseat.post(
        "/v1/images/generations",
        json={**ASKED, **said, "output_compression": 80 if said else None},
        headers=NODE,
    )

    assert decoded(answer.body["data"][0]["b64_json"]).format == kind


async def test_image_edit_oai_sends_a_form(hotseat: Hotseat) -> None:
    """Each picture as `image[]`."""
    form = aiohttp.FormData()
    for name in ("model", "prompt", "quality", "size"):
        form.add_field(name, ASKED[name])
    for number in range(2):
        form.add_field("image[]", picture(), filename=f"{number}.png", content_type="image/png")
    answer = await hotseat.post("/v1/images/edits", data=form, headers=AXIOS)

    assert decoded(answer.body["data"][0]["b64_json"]).size == (64, 64)


async def test_the_tool_for_stable_diffusion_reads_what_was_done(hotseat: Hotseat) -> None:
    """It names no model, and finds the size, the seed and the text in `info`, which is JSON."""
    asked = {"prompt": "a red circle", "negative_prompt": "grey", "cfg_scale": 4.5}
    asked |= {"steps": 3, "width": 96, "height": 64}  # its own would be 22, 1024 and 1024
    answer = await hotseat.post("/sdapi/v1/txt2img", json=asked, headers=AXIOS)
    info = json.loads(answer.body["info"])

    assert decoded(answer.body["images"][0]).size == (96, 64)
    assert (info["width"], info["height"], type(info["seed"])) == (96, 64, int)
    assert info["infotexts"][0].startswith("a red circle\nNegative prompt: grey\nSteps: 3")


async def test_errors_are_json_though_it_would_take_text(hotseat: Hotseat) -> None:
    """Axios says that it takes text too, and nobody reads that."""
    answer = await hotseat.post(
        "/v1/images/generations", json={**ASKED, "model": "dall-e-9"}, headers=AXIOS
    )

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
