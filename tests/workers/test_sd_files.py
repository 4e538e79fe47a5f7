"""What the sd worker refuses before its engine sees it: files, and parts that do not fit."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.workers import sd_files
from tests.workers.launch import StartFailed, check, launched
from workers import wire
from workers.files import Header
from workers.sd import checks, families, loras
from workers.sd.options import SdOptions

FLUX2 = {
    "double_stream_modulation_img.lin.weight": (768, 128),
    "txt_in.weight": (128, 32),
    "double_blocks.0.img_attn.qkv.weight": (384, 128),
}
UNET = {
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
}


def problems(**options: object) -> dict[str, str]:
    """Check options in this process; option → message."""
    return {p.option: p.message for p in checks.problems(SdOptions.model_validate(options))}


def test_a_sound_set_has_no_problems(models: Path) -> None:
    """The tiny set passes every check."""
    assert problems(**sd_files.options(models)) == {}


async def test_check_answers_each_line(models: Path, tmp_path: Path) -> None:
    """`--check` answers with the problems of each options line."""
    bad = sd_files.options(models, llm=str(tmp_path / "none.gguf"))

    found = await check("sd", [sd_files.options(models), bad, {"modell": "x"}])

    assert found[0] == []
    assert "no such file" in found[1][0]["message"]
    assert found[2][0]["option"] == "modell"


@pytest.mark.engine
async def test_a_bad_file_fails_the_start(models: Path, tmp_path: Path) -> None:
    """The worker says `failed` with the reason, and does not load anything."""
    file = tmp_path / "llm.gguf"
    file.write_bytes((models / "image/llm.gguf").read_bytes()[:-1000])

    with pytest.raises(StartFailed) as failed:
        async with launched("sd", sd_files.options(models, llm=str(file))):
            pass

    assert failed.value.reason == "bad_file"


@pytest.mark.engine
@pytest.mark.timeout(60)
async def test_the_engine_tells_of_a_missing_tensor(models: Path, tmp_path: Path) -> None:
    """A file that passes the checks but lacks a tensor fails the start with the engine's words."""
    source = models / "image/diffusion.safetensors"
    raw = source.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    del header["final_layer.linear.weight"]
    file = sd_files.write_header(tmp_path / "d.safetensors", header, raw[8 + length :])

    with pytest.raises(StartFailed, match=r"final_layer\.linear\.weight") as failed:
        async with launched("sd", sd_files.options(models, diffusion_model=str(file))):
            pass

    assert failed.value.reason == "bad_file"


def test_nothing_named_is_a_problem() -> None:
    """Options without a model say what to name."""
    assert "name the model" in problems()["model"]


def test_missing_parts_are_named(tmp_path: Path) -> None:
    """A bare FLUX.2 needs its language model and a VAE."""
    file = sd_files.write_safetensors(tmp_path / "d.safetensors", FLUX2)

    found = problems(diffusion_model=str(file))

    assert "`vae`" in found["vae"]
    assert "`llm`" in found["llm"]


def test_a_checkpoint_without_its_parts_names_them(tmp_path: Path) -> None:
    """A UNet alone needs what a whole checkpoint would bring."""
    unet = sd_files.write_safetensors(tmp_path / "unet.safetensors", UNET)
    whole = {"first_stage_model.x": (1,), "cond_stage_model.x": (1,)}
    checkpoint = sd_files.write_safetensors(tmp_path / "all.safetensors", UNET | whole)

    assert problems(model=str(unet)).keys() == {"vae", "clip_l"}
    assert problems(model=str(checkpoint)) == {}


def test_a_bare_diffusion_model_as_model_is_told_where_it_belongs(tmp_path: Path) -> None:
    """`model` wants everything in one file."""
    file = sd_files.write_safetensors(tmp_path / "d.safetensors", FLUX2)

    assert "`diffusion_model`" in problems(model=str(file))["model"]


def test_parts_of_another_model_are_refused(models: Path, tmp_path: Path) -> None:
    """A VAE with other latents, and a language model of another width, are told by their heads."""
    vae = sd_files.write_safetensors(
        tmp_path / "vae.safetensors", {"decoder.conv_in.weight": (64, 16, 3, 3)}
    )
    llm = sd_files.write_safetensors(
        tmp_path / "llm.safetensors", {"model.embed_tokens.weight": (10, 48)}
    )

    found = problems(**sd_files.options(models, vae=str(vae), llm=str(llm)))

    assert "16 latent channels" in found["vae"]
    assert "width 48" in found["llm"]


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (FLUX2, "flux2-klein"),
        (FLUX2 | {"single_blocks.47.linear1.weight": (1, 1)}, "flux2-dev"),
        ({"double_blocks.0.x": (1,)}, "flux-schnell"),
        ({"double_blocks.0.x": (1,), "guidance_in.in_layer.weight": (1, 1)}, "flux-dev"),
        ({"joint_blocks.0.x": (1,)}, "sd3"),
        ({"cap_embedder.0.weight": (1,)}, "z-image"),
        ({"transformer_blocks.0.img_mod.1.weight": (1, 1)}, "qwen-image"),
        (UNET, "sd1"),
        ({"something.else": (1,)}, "other"),
    ],
)
def test_the_family_is_told_by_the_tensors(
    shapes: dict[str, tuple[int, ...]], family: str
) -> None:
    """Names and shapes tell the architecture, as they do for the engine."""
    assert family == families.family_of(Header(shapes)).name


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (sd_files.lora_shapes("diffusion_model.txt_in", 128, 48), "but the model's is"),
        (sd_files.lora_shapes("lora_unet_txt_in", 64, 32), "but the model's is"),
        (sd_files.lora_shapes("transformer.other", 320, 768), "no such layer"),
        ({"diffusion_model.txt_in.lora_A.weight": (4, 32)}, "one half"),
        ({"a": (1,)}, "pairs"),
    ],
)
def test_a_lora_of_another_model_is_refused(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], told: str
) -> None:
    """The engine would abort on it, or leave it out without a word."""
    sd_files.write_safetensors(tmp_path / "odd.safetensors", shapes)
    model = loras.weights_of(Header(FLUX2), [])

    with pytest.raises(wire.ApiError, match=told) as refused:
        loras.find(tmp_path, "odd", 1.0, model)

    assert refused.value.status == 400


@pytest.mark.parametrize("module", ["diffusion_model.txt_in", "lora_unet_txt_in"])
def test_a_lora_that_fits_is_found(tmp_path: Path, module: str) -> None:
    """Both naming habits are known, with or without folder and suffix."""
    (tmp_path / "deep").mkdir()
    sd_files.write_safetensors(
        tmp_path / "deep/good.safetensors", sd_files.lora_shapes(module, 128, 32)
    )
    model = loras.weights_of(Header(FLUX2), [])

    found = [
        loras.find(tmp_path, name, 1.0, model)
        for name in ("good", "deep/good", "good.safetensors")
    ]

    assert {str(tmp_path / "deep/good.safetensors")} == {lora.path for lora in found}


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/../../secret", "nothing"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """A LoRA is opened only if the listing of the folder has it."""
    sd_files.write_safetensors(
        tmp_path / "secret.safetensors", sd_files.lora_shapes("txt_in", 128, 32)
    )
    inside = tmp_path / "inside"
    inside.mkdir()

    with pytest.raises(wire.ApiError) as refused:
        loras.find(inside, name, 1.0, loras.weights_of(Header(FLUX2), []))

    assert refused.value.status == 404


def test_lora_tags_are_taken_out_of_the_prompt() -> None:
    """The engine must not see `<lora:…>`; a tag without weight has 1."""
    prompt, found = loras.take_tags("a cat <lora:one:0.5> on a mat<lora:two>")

    assert prompt == "a cat on a mat"
    assert found == [("one", 0.5), ("two", 1.0)]
