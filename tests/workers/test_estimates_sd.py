"""What an image worker would hold, and what a picture needs on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workers import heads, sd_files
from tests.workers.reckoned import held, ladder, sd, total
from workers.memory import MIB

SIDES_PX = (512, 768, 1024, 1536)


@pytest.mark.parametrize(
    ("more", "mib"),
    [
        ({"diffusion_flash_attn": False}, (342, 973, 2361, 9568)),
        ({"diffusion_flash_attn": True}, (231, 463, 780, 1681)),
    ],
)
def test_flux_takes_what_was_measured(tmp_path: Path, more: Any, mib: tuple[int, ...]) -> None:
    """The buffer of FLUX's real widths is met within 15 %, with and without flash attention."""
    path = heads.flux(tmp_path / "flux.safetensors")

    found = ladder(sd(diffusion_model=str(path), keep_vae_on_cpu=True, **more))

    measured = [size * MIB for size in mib]
    assert [found[side**2] for side in SIDES_PX] == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("more", "mib"),
    [
        ({}, (1664, 3745, 6657, 14980)),
        ({"vae_conv_direct": True}, (704, None, None, None)),
    ],
)
def test_the_vae_takes_what_was_measured(
    tmp_path: Path, more: Any, mib: tuple[int | None, ...]
) -> None:
    """The buffer of a VAE of 128 channels is met within 15 %."""
    flux = heads.flux(tmp_path / "flux.safetensors", width=128)
    vae = heads.kl_vae(tmp_path / "vae.safetensors")

    found = ladder(sd(diffusion_model=str(flux), vae=str(vae), diffusion_flash_attn=True, **more))

    known = {side**2: size * MIB for side, size in zip(SIDES_PX, mib, strict=True) if size}
    assert {pixels: found[pixels] for pixels in known} == pytest.approx(known, rel=0.15)


def test_tiling_holds_the_vae_to_a_tile(tmp_path: Path) -> None:
    """With tiles, a large picture takes of the VAE what a tile takes: 416 MiB."""
    flux = heads.flux(tmp_path / "flux.safetensors", width=128)
    vae = heads.kl_vae(tmp_path / "vae.safetensors")
    options = {"diffusion_model": str(flux), "vae": str(vae), "diffusion_flash_attn": True}

    whole, tiled = ladder(sd(**options)), ladder(sd(**options, vae_tiling=True))

    assert tiled[1024**2] == 416 * MIB
    assert all(tiled[pixels] < size for pixels, size in whole.items() if pixels > 256**2)


@pytest.mark.parametrize("most", [100_000, 1024 * 1024, 1 << 26])
def test_the_ladder_ascends_to_the_largest_picture(models: Path, most: int) -> None:
    """Rungs go up in pixels and in bytes, and end where the worker paints no larger."""
    rungs = sd(**sd_files.options(models, max_pixels=most)).requests

    pixels, sizes = [r.up_to_pixels for r in rungs], [r.size_bytes for r in rungs]
    assert pixels == sorted(set(pixels))
    assert pixels[-1] == most
    assert sizes == sorted(sizes)


def test_flash_attention_lowers_every_rung(tmp_path: Path) -> None:
    """Without the scores of all pairs, each size takes less."""
    path = str(heads.flux(tmp_path / "flux.safetensors"))
    both = [
        ladder(sd(diffusion_model=path, keep_vae_on_cpu=True, diffusion_flash_attn=on))
        for on in (False, True)
    ]

    assert all(both[1][pixels] < size for pixels, size in both[0].items())


def test_what_is_offloaded_comes_with_the_request(tmp_path: Path) -> None:
    """Offloaded weights lie in host memory, and the largest stage is copied for a request."""
    flux = str(heads.flux(tmp_path / "flux.safetensors"))
    vae = str(heads.kl_vae(tmp_path / "vae.safetensors"))
    options = {"diffusion_model": flux, "vae": vae, "vae_tiling": True}
    plain, offloaded = sd(**options), sd(**options, offload_params_to_cpu=True)
    bounded = sd(**options, offload_params_to_cpu=True, max_vram=6)

    weights = held(plain, "diffusion model")["device"]
    assert offloaded.held_bytes("device") == 0
    assert held(offloaded, "diffusion model") == {"host": weights}
    on_device = ladder(sd(**options, keep_vae_on_cpu=True))
    assert ladder(offloaded)[1024**2] == weights + on_device[1024**2]
    assert ladder(bounded)[1024**2] == 6 << 30


def test_what_is_kept_on_the_host_needs_no_device(models: Path) -> None:
    """`keep_clip_on_cpu` and `keep_vae_on_cpu` take their stages off the device."""
    memory = sd(
        **sd_files.options(models, keep_clip_on_cpu=True, keep_vae_on_cpu=True, references=False)
    )

    assert held(memory, "text encoder").keys() == held(memory, "VAE").keys() == {"host"}
    assert ladder(memory)[1024**2] < 200 * MIB


@pytest.mark.parametrize(
    ("wanted", "linear", "table"),
    [(None, 2, 2), ("q8_0", 34 / 32, 34 / 32), ("q4_k", 144 / 256, 4)],
)
def test_the_engine_keeps_types_of_its_own(
    tmp_path: Path, wanted: str | None, linear: float, table: float
) -> None:
    """Kernels are F16, vectors F32, tables only what rows are read from, the rest as told."""
    path = heads.write_safetensors(
        tmp_path / "llm.safetensors",
        {
            "model.embed_tokens.weight": ("F16", (1000, 256)),
            "model.layers.0.self_attn.q_proj.weight": ("F8_E4M3", (512, 256)),
            "model.norm.weight": ("BF16", (256,)),
            "model.patch.weight": ("F32", (8, 3, 4, 4)),
            "lm_head.weight": ("F16", (1000, 256)),
        },
    )
    flux = heads.flux(tmp_path / "flux.safetensors", width=128, double=1, single=1)

    memory = sd(diffusion_model=str(flux), llm=str(path), type=wanted)

    expected = 1000 * 256 * table + 512 * 256 * linear + 256 * 4 + 8 * 3 * 16 * 2
    assert total(memory, "text encoder") == expected


def test_an_autoencoder_for_previews_comes_on_top(tmp_path: Path) -> None:
    """Beside a VAE, a taesd takes its place; for previews alone, it is held as well."""
    shapes = {"decoder.layers.0.weight": (64, 16, 3, 3)}
    taesd = sd_files.write_safetensors(tmp_path / "taesd.safetensors", shapes)
    flux = heads.flux(tmp_path / "flux.safetensors", width=128)
    vae = heads.kl_vae(tmp_path / "vae.safetensors")
    options = {"diffusion_model": str(flux), "vae": str(vae), "diffusion_flash_attn": True}

    plain, small, both = (
        sd(**options),
        sd(**options, taesd=str(taesd)),
        sd(**options, taesd=str(taesd), preview="tae"),
    )

    weights = [total(memory, "VAE") for memory in (plain, small, both)]
    assert weights[2] == weights[0] + weights[1]
    assert ladder(small)[1024**2] < ladder(both)[1024**2] == ladder(plain)[1024**2]
