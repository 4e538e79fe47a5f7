"""The HTTP face: OpenAI's image endpoints, and /props."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import web

from workers import files, serve, wire
from workers.sd import answers, bodies, checks, families, loras, plan, samplers
from workers.sd.engine import OutOfMemory, PaintFailed
from workers.sd.job import Job
from workers.sd.options import COMPONENTS, SdOptions
from workers.sd.painter import Painter

WARM_UP = Job(prompt="a", width=64, height=64, steps=1, cfg_scale=1.0)


class Face:
    """Serves one model."""

    def __init__(self) -> None:
        self._painter = Painter()
        self._model: plan.Model | None = None
        self._can_stop = False

    def load(self, options: SdOptions, progress: serve.Progress) -> Mapping[str, object]:
        """Load the model; call from a thread. Returns facts. Raises serve.LoadFailed."""
        self._model = _model(options)
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
            web.get("/props", self._props),
        ]

    @property
    def model(self) -> plan.Model:
        assert self._model is not None, "load comes first"  # noqa: S101  # the shell's promise
        return self._model

    async def _generations(self, request: web.Request) -> web.Response:
        with self._painter.wanted():
            return await self._answer(await bodies.read(request))

    async def _edits(self, request: web.Request) -> web.Response:
        with self._painter.wanted():
            asked = await bodies.read(request)
            if not asked.images:
                raise wire.bad_request(
                    "an edit needs a picture: send `image`", param="image", code="missing_field"
                )
            return await self._answer(asked)

    async def _answer(self, asked: bodies.Asked) -> web.Response:
        """Paint n pictures, each its own turn at the engine, so that others wait for one only."""
        made = await asyncio.to_thread(plan.make, asked, self.model)
        encoded = [await self._paint(asked.body, made, seed) for seed in made.seeds]
        return web.json_response(answers.answer(asked.body, made, encoded))

    async def _paint(self, body: bodies.ImageBody, made: plan.Plan, seed: int) -> answers.Encoded:
        try:
            image = await self._painter.paint(made.job, seed)
        except OutOfMemory as error:
            raise wire.OutOfMemory(
                f"no memory for {made.job.width}x{made.job.height}: {error}; try a smaller size,"
                " or vae_tiling in swap.yaml"
            ) from error
        except PaintFailed as error:
            raise wire.ApiError(500, f"no picture: {error}", code="engine_error") from error
        return await asyncio.to_thread(
            lambda: answers.encode(made.finished(image), body, made.job, seed)
        )

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
                "steps": options.defaults.steps or model.family.steps,
                "sample_methods": samplers.SAMPLE_METHODS,
                "schedulers": samplers.SCHEDULERS,
                "loras": list(loras.names(model.lora_dir)),
                "pictures": self._painter.counts,
            }
        )


def _model(options: SdOptions) -> plan.Model:
    main = _read(options.main_file)
    parts = [_read(p) for name in COMPONENTS if (p := options.path_of(name)) is not None]
    family = families.family_of(main)
    return plan.Model(
        options, family, checks.references(options, family), loras.weights_of(main, parts)
    )


def _read(path: str) -> files.Header:
    try:
        return files.read(path)
    except files.BadFile as error:  # it changed since it was checked
        raise serve.LoadFailed("bad_file", f"{path} {error}") from error
