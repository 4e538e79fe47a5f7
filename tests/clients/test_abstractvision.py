"""AbstractVision's own backend for servers that speak OpenAI: the catalogue, pictures, edits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from abstractvision.backends import (
    OpenAICompatibleBackendConfig,
    OpenAICompatibleVisionBackend,
)
from abstractvision.types import ImageEditRequest, ImageGenerationRequest

from tests.clients.drawn import hole, is_kept_outside, opened, picture
from tests.proxy.served import Hotseat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]
ASKED = ImageGenerationRequest(
    prompt="a red circle", negative_prompt="grey", width=64, height=96, seed=5, steps=2
)
EDIT = ImageEditRequest(prompt="a blue circle", image=picture(64, 96), seed=5, steps=2)


def backend(hotseat: Hotseat, model: str | None = "painter") -> OpenAICompatibleVisionBackend:
    config = OpenAICompatibleBackendConfig(base_url=f"{hotseat.url}/v1", model_id=model)
    return OpenAICompatibleVisionBackend(config=config)


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
async def test_the_catalogue_offers_who_paints(hotseat: Hotseat, task: str) -> None:
    """And nobody else, whatever else there is."""
    listed = await asyncio.to_thread(backend(hotseat).list_provider_models, task=task)

    assert [one.id for one in listed] == ["painter"]


async def test_the_catalogue_has_everybody(hotseat: Hotseat) -> None:
    """Where no task is named; and nobody for what nobody does."""
    listed = await asyncio.to_thread(backend(hotseat).list_provider_models)
    films = await asyncio.to_thread(backend(hotseat).list_provider_models, task="text_to_video")

    assert [one.id for one in listed] == ["describer", "painter", "talker"]
    assert all(one.capabilities and one.created for one in listed)
    assert films == []


async def test_a_picture_is_made_as_it_is_asked_for(hotseat: Hotseat) -> None:
    """In its size, and by its seed."""
    paint = backend(hotseat).generate_image
    first = await asyncio.to_thread(paint, ASKED)
    again = await asyncio.to_thread(paint, ASKED)
    other = await asyncio.to_thread(paint, replace(ASKED, seed=6))
    longer = await asyncio.to_thread(paint, replace(ASKED, steps=3, guidance_scale=4.0))

    assert (first.mime_type, opened(first.data).size) == ("image/png", (64, 96))
    assert first.data == again.data
    assert len({first.data, other.data, longer.data}) == 3


async def test_a_picture_is_edited_in_its_own_size(hotseat: Hotseat) -> None:
    """As it never names one."""
    edited = await asyncio.to_thread(backend(hotseat).edit_image, EDIT)
    masked = await asyncio.to_thread(backend(hotseat).edit_image, replace(EDIT, mask=hole(64, 96)))

    assert opened(edited.data).size == (64, 96)
    assert edited.data != EDIT.image
    assert is_kept_outside(opened(EDIT.image), opened(masked.data))


@pytest.mark.parametrize(
    ("model", "status", "told"),
    [
        ("paintr", 404, "model_not_found"),
        (None, 400, "missing_model"),
        ("openai-compatible/talker", 400, "talker is for chat"),
    ],
)
async def test_what_went_wrong_is_in_its_error(
    hotseat: Hotseat, model: str | None, status: int, told: str
) -> None:
    """Status and body are all that it tells; its own prefixes it takes off before."""
    with pytest.raises(RuntimeError, match=f"status={status}.*{told}"):
        await asyncio.to_thread(backend(hotseat, model).generate_image, ASKED)
