"""The HTTP face: OpenAI's image endpoints, AUTOMATIC1111's, and what is under way."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from aiohttp import web
from PIL import Image
from pydantic import Field

from workers import files, serve, wire
from workers.sd import (
    a1111,
    answers,
    bodies,
    checks,
    device,
    estimate,
    events,
    families,
    loras,
    plan,
    room,
    samplers,
)
from workers.sd.engine import LoraUnfit, OutOfMemory, PaintFailed, VaeOutOfMemory
from workers.sd.job import Job, Step
from workers.sd.options import COMPONENTS, SdOptions
from workers.sd.painter import Painter
from workers.sd.turns import Turn, Turns

log = logging.getLogger(__name__)

JOB_HEADER = "X-Hotseat-Job"
WARM_UP = Job(prompt="a", width=64, height=64, steps=1, cfg_scale=1.0)
SILENT = events.Listener()

Read = Callable[[web.Request], Awaitable[bodies.Asked]]


class InterruptBody(wire.Body):
    """Which job to end; all without it."""

    job: str | None = Field(None, max_length=200)


class Face:
    """Serves one model."""

    def __init__(self) -> None:
        self._painter = Painter()
        self._turns = Turns()
        self._model: plan.Model | None = None
        self._room = room.Room(0)
        self._can_stop = False

    def load(self, options: SdOptions, progress: serve.Progress) -> Mapping[str, object]:
        """Load the model; call from a thread. Returns facts. Raises serve.LoadFailed."""
        self._model = _model(options)
        self._room = room.of(estimate.estimate(options), on_gpu=device.has_gpu())
        flash_attn = families.flash_attention(self._model.family, options.diffusion_flash_attn)
        self._can_stop = self._painter.load(
            options, WARM_UP, flash_attn=flash_attn, progress=progress
        )
        width, height = self._model.rounded(self._model.default_size)
        return {
            "family": self._model.family.name,
            "references": self._model.references,
            "size": f"{width}x{height}",
            "can_stop": self._can_stop,
        }

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            *wire.with_and_without_v1("/images/generations", self._generations),
            *wire.with_and_without_v1("/images/edits", self._edits),
            *wire.with_and_without_v1("/images/variations", self._variations),
            web.post("/sdapi/v1/txt2img", self._txt2img),
            web.post("/sdapi/v1/img2img", self._img2img),
            web.get("/sdapi/v1/loras", self._a1111_loras),
            web.get("/loras", self._loras),
            web.get("/progress", self._progress),
            web.post("/interrupt", self._interrupt),
            web.get("/props", self._props),
        ]

    @property
    def model(self) -> plan.Model:
        assert self._model is not None, "load comes first"  # noqa: S101  # the shell's promise
        return self._model

    async def _generations(self, request: web.Request) -> web.StreamResponse:
        return await self._openai(request, bodies.read, "image_generation")

    async def _edits(self, request: web.Request) -> web.StreamResponse:
        return await self._openai(request, bodies.read_edit, "image_edit")

    async def _variations(self, request: web.Request) -> web.StreamResponse:
        return await self._openai(request, bodies.read_variation, "image_variation")

    async def _openai(self, request: web.Request, read: Read, kind: str) -> web.StreamResponse:
        with self._painter.wanted():
            asked = await read(request)
            if not asked.body.stream:
                made, encoded = await self._paint_all(request, asked, SILENT)
                return web.json_response(answers.answer(asked.body, made, encoded))
            async with wire.EventStream(request, done=False) as stream:
                listener = events.Events(stream, asked.body, kind)
                await self._paint_all(request, asked, listener)
            return stream.response

    async def _txt2img(self, request: web.Request) -> web.Response:
        return await self._a1111(request, a1111.txt2img)

    async def _img2img(self, request: web.Request) -> web.Response:
        return await self._a1111(request, a1111.img2img)

    async def _a1111(
        self, request: web.Request, read: Callable[[bytes], bodies.Asked]
    ) -> web.Response:
        with self._painter.wanted():
            asked = read(await request.read())
            made, encoded = await self._paint_all(request, asked, SILENT)
            return web.json_response(a1111.answer(made, encoded))

    async def _paint_all(
        self, request: web.Request, asked: bodies.Asked, listener: events.Listener
    ) -> tuple[plan.Plan, list[answers.Encoded]]:
        """Paint n pictures, each its own turn at the engine, so that others wait for one only."""
        with self._turns.open(request.headers.get(JOB_HEADER) or uuid.uuid4().hex) as turn:
            room_bytes = self._room.left_bytes(request.headers.get(room.HEADER))
            made = await asyncio.to_thread(plan.make, asked, self.model, room_bytes)
            turn.plan(made.job.steps, len(made.seeds))
            encoded = []
            for number, seed in enumerate(made.seeds, 1):
                turn.begin(number)
                made, image = await self._paint(turn, made, seed, listener)
                one = await asyncio.to_thread(_finished, made, image, asked.body, seed)
                encoded.append(one)
                await listener.at_picture(turn, made, one)
            return made, encoded

    async def _paint(
        self, turn: Turn, made: plan.Plan, seed: int, listener: events.Listener
    ) -> tuple[plan.Plan, Image.Image]:
        try:
            return await self._painted_somehow(turn, made, seed, listener)
        except OutOfMemory as error:
            raise wire.OutOfMemory(
                f"no memory for {made.job.width}x{made.job.height}: {error}; try a smaller size,"
                " or vae_tiling"
            ) from error
        except LoraUnfit as error:
            raise loras.refused(made.job.loras, str(error)) from error
        except PaintFailed as error:
            raise wire.ApiError(500, f"no picture: {error}", code="engine_error") from error

    async def _painted_somehow(
        self, turn: Turn, made: plan.Plan, seed: int, listener: events.Listener
    ) -> tuple[plan.Plan, Image.Image]:
        """Paint, in tiles where there is no memory without; the plan tells which it was."""
        try:
            return made, await self._painted(turn, made, seed, listener)
        except VaeOutOfMemory as error:
            if made.job.vae_tiling:
                raise
            log.warning("vae_tiling: in tiles, for want of memory: %s", error)
        tiled = replace(made, job=replace(made.job, vae_tiling=True))
        return tiled, await self._painted(turn, tiled, seed, listener)

    async def _painted(
        self, turn: Turn, made: plan.Plan, seed: int, listener: events.Listener
    ) -> Image.Image:
        async with aclosing(self._painter.paint(made.job, seed)) as seen:
            async for thing in seen:
                if not isinstance(thing, Step):
                    return thing
                turn.take(thing)
                await listener.at_step(turn, made)
        raise PaintFailed("the engine ended without a picture")

    async def _progress(self, request: web.Request) -> web.Response:
        with_preview = request.query.get("preview") in ("1", "true")
        turns = tuple(self._turns)
        told = [{"id": turn.job, **turn.progress} for turn in turns]
        if with_preview:
            shown = await asyncio.to_thread(lambda: [_preview(turn) for turn in turns])
            told = [{**one, "preview": raw} for one, raw in zip(told, shown, strict=True)]
        return web.json_response({"jobs": told})

    async def _interrupt(self, request: web.Request) -> web.Response:
        body = wire.parse_body(await request.read() or b"{}", InterruptBody)
        return web.json_response({"interrupted": self._turns.interrupt(body.job)})

    async def _loras(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._listing())

    async def _a1111_loras(self, _request: web.Request) -> web.Response:
        return web.json_response(a1111.lora_listing(await self._listing()))

    async def _listing(self) -> list[dict[str, object]]:
        return await asyncio.to_thread(loras.listing, self.model.lora_dir, self.model.weights)

    async def _props(self, _request: web.Request) -> web.Response:
        model = self.model
        options = model.options
        width, height = model.rounded(model.default_size)
        return web.json_response(
            {
                "family": model.family.name,
                "references": model.references,
                "can_stop": self._can_stop,
                "size": f"{width}x{height}",
                "size_multiple": model.family.size_multiple,
                "max_pixels": options.max_pixels,
                "max_steps": options.max_steps,
                "max_n": options.max_n,
                "max_prompt_chars": options.max_prompt_chars,
                "max_images": options.max_images,
                "max_image_pixels": options.max_image_pixels,
                "steps": options.defaults.steps or model.family.steps,
                "sample_methods": samplers.SAMPLE_METHODS,
                "schedulers": samplers.SCHEDULERS,
                "loras": list(loras.names(model.lora_dir)),
                "pictures": self._painter.counts,
            }
        )


def _finished(
    made: plan.Plan, image: Image.Image, body: bodies.ImageBody, seed: int
) -> answers.Encoded:
    one = answers.encode(made.finished(image), body, made, seed)
    if one.is_black:
        log.warning("black_picture: %s", answers.BLACK)
    return one


def _preview(turn: Turn) -> str | None:
    """Write the newest preview as a PNG in base64."""
    preview = turn.preview  # the loop may put another in its place
    if preview is None:
        return None
    to = io.BytesIO()
    preview.save(to, "PNG", compress_level=1)
    return base64.b64encode(to.getvalue()).decode()


def _model(options: SdOptions) -> plan.Model:
    main = _read(options.main_file)
    parts = [_read(p) for name in COMPONENTS if (p := options.path_of(name)) is not None]
    family = families.family_of(main)
    return plan.Model(
        *(options, family, checks.references(options, family), loras.weights_of(main, parts)),
        estimate.vae_bytes(options),
    )


def _read(path: str) -> files.Header:
    try:
        return files.read(path)
    except files.BadFile as error:  # it changed since it was checked
        raise serve.LoadFailed("bad_file", f"{path} {error}") from error
