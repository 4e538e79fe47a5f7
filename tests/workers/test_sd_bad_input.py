"""Bad input to the sd worker: each is told in words of its own, and costs nobody the worker."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from PIL import Image

from tests.workers import sd_files
from tests.workers.drawn import data_uri, encoded
from tests.workers.launch import Launched, launched
from tests.workers.sd_files import lora_shapes, scene

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
IMG2IMG = "/sdapi/v1/img2img"
PLAIN: dict[str, Any] = {"prompt": "a red circle", "seed": 7, "steps": 1}
MODULE = "diffusion_model.txt_in"
WHOLE = lora_shapes(MODULE, 128, 32)
DEEP = 100_000


def entries(dtype: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Describe tensors that all begin at the first byte."""
    item_bytes = int(dtype[1:]) // 8
    return {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, item_bytes * math.prod(shape)]}
        for name, shape in shapes.items()
    }


def write_loras(folder: Path) -> None:
    """Write LoRAs that no engine could use, or this one not."""
    sound = sd_files.write_safetensors(folder / "sound.safetensors", WHOLE).read_bytes()
    (folder / "half.safetensors").write_bytes(sound[: len(sound) // 2])
    (folder / "head.safetensors").write_bytes(sound[:8])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "text.safetensors").write_text("this is no LoRA")
    (folder / "page.safetensors").write_text("<!DOCTYPE html><html>404</html>")
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "long.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    pair = {f"{MODULE}.lora_A.weight": (4, 32), f"{MODULE}.lora_B.weight": (128, 4)}
    for name, entry in {
        "typeless": {"data_offsets": [0, 256]},
        "placeless": {"dtype": "F16"},
        "negative": {"dtype": "F16", "data_offsets": [0, -256]},
        "beyond": {"dtype": "F16", "data_offsets": [1 << 50, (1 << 50) + 256]},
    }.items():
        header = {tensor: {"shape": shape, **entry} for tensor, shape in pair.items()}
        sd_files.write_header(folder / f"{name}.safetensors", header)
    for name, tensors in {
        "integers": entries("I32", pair),
        "counted": entries("F16", pair) | entries("I32", {f"{MODULE}.diff": (128, 32)}),
        "alpha": entries("F16", pair) | entries("I64", {f"{MODULE}.alpha": ()}),  # a sound one
    }.items():
        sd_files.write_header(folder / f"{name}.safetensors", tensors, bytes(4 * 128 * 32))
    diffusers = "transformer.transformer_blocks.0.attn.to_q"
    for name, shapes in {
        "lonely": {f"{MODULE}.lora_A.weight": (4, 32)},
        "wide": lora_shapes(MODULE, 3072, 4096),
        "rankless": lora_shapes(MODULE, 128, 32, rank=0),
        "dotted": {f"{MODULE}.lora.down.weight": (4, 48), f"{MODULE}.lora.up.weight": (128, 4)},
        # these pass by their heads
        "renamed": lora_shapes(diffusers, 32, 32),
        "difference": WHOLE | {f"{MODULE}.diff": (7, 9)},
        "product": WHOLE | {f"{MODULE}.lokr_w1": (7, 9), f"{MODULE}.lokr_w2": (5, 3)},
    }.items():
        sd_files.write_safetensors(folder / f"{name}.safetensors", shapes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Launched]:
    """One worker that has to bear it all, and then paints as before."""
    folder = tmp_path_factory.mktemp("loras")
    write_loras(folder)
    async with launched("sd", sd_files.options(models, lora_dir=str(folder))) as launch:
        before = await launch.post(GENERATIONS, PLAIN)
        yield launch
        after = await launch.post(GENERATIONS, PLAIN)
        assert after["data"] == before["data"]


async def refused(worker: Launched, path: str, raw: Any, kind: str | None = None) -> Any:
    """Send a body; gives the status and the error, which has to be OpenAI's in full."""
    headers = {"Content-Type": kind} if kind else {}
    async with worker.session.post(path, data=raw, headers=headers) as answer:
        error = (await answer.json())["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 10
    return answer.status, error


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((name, "damaged") for name in ("half", "head", "long", "text")),
        *((name, "damaged") for name in ("typeless", "placeless", "negative", "beyond")),
        ("empty", "is empty"),
        ("page", "web page"),
        ("pointer", "git lfs pull"),
        *((name, "whole numbers") for name in ("integers", "counted")),
        ("lonely", "one half"),
        ("wide", "the model's is"),
        ("dotted", "the model's is"),
        ("rankless", "do not fit each other"),
        *((name, "the engine says") for name in ("renamed", "difference", "product")),
    ],
)
async def test_a_lora_that_cannot_be_used(worker: Launched, name: str, told: str) -> None:
    """It is the client's mistake, whether its head tells or only the engine."""
    body = json.dumps(PLAIN | {"loras": ["sound", name]})

    status, error = await refused(worker, GENERATIONS, body, "application/json")

    assert (status, error["code"], error["param"]) == (400, "lora_mismatch", "loras")
    assert told in error["message"]
    assert name in error["message"]


async def test_a_lora_may_tell_its_scale_as_a_whole_number(worker: Launched) -> None:
    """One such number is no weight, and the engine reads it."""
    await worker.post(GENERATIONS, PLAIN | {"loras": ["alpha"]})


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG that has a head and the given chunks, and not a pixel."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), *chunks)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


WHOLE_PNG = encoded(Image.effect_noise((64, 64), 50))
PICTURES: dict[str, tuple[bytes, int]] = {
    "no bytes": (b"", 400),
    "text": (b"hello", 400),
    "drawn in words": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 400),
    "the head of a huge one": (png(60_000, 60_000, (b"IDAT", b"x")), 400),
    "no pixels": (png(64, 64, (b"IDAT", b"")), 400),
    "no width": (png(0, 64, (b"IDAT", b"x")), 400),
    "cut short": (WHOLE_PNG[: len(WHOLE_PNG) // 2], 400),
    "a bomb of words": (png(64, 64, (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27)))), 400),
    "a thin one": (encoded(Image.new("RGB", (1000, 10))), 400),
    "a thin and huge one": (encoded(Image.new("1", (100_000, 1))), 400),
}


@pytest.mark.parametrize(
    ("field", "what"),
    [
        *(("image", what) for what in PICTURES),
        # a mask is brought to the picture's size, whatever its own
        *(("mask", what) for what in PICTURES if "thin" not in what),
    ],
)
async def test_a_picture_that_is_none(worker: Launched, field: str, what: str) -> None:
    """A picture or mask that cannot be read, or is too large, is told by its field."""
    raw, status = PICTURES[what]
    form = aiohttp.FormData({"prompt": "a red circle", "steps": "1"})
    form.add_field("image", raw if field == "image" else WHOLE_PNG, filename="../../a.png")
    form.add_field("mask", raw if field == "mask" else WHOLE_PNG, filename="m")

    found, error = await refused(worker, EDITS, form)

    assert (found, error["param"]) == (status, field)


@pytest.mark.parametrize(
    "raw",
    [
        encoded(Image.new("RGB", (1, 1), "red")),
        WHOLE_PNG + b"PK\x03\x04 and a whole archive",
        encoded(scene(), "GIF", save_all=True, append_images=[scene(colour="blue")]),
        encoded(scene(), "WEBP", save_all=True, append_images=[scene(colour="blue")]),
        encoded(scene(), "PNG", save_all=True, append_images=[scene(colour="blue")]),
        encoded(scene().convert("CMYK"), "JPEG"),
        encoded(Image.new("I;16", (64, 64), 30_000)),
        encoded(scene().convert("P"), "GIF", transparency=0),
    ],
    ids=["1x1", "polyglot", "gif", "webp", "apng", "cmyk", "16 bits", "palette"],
)
async def test_an_odd_picture_is_edited_all_the_same(worker: Launched, raw: bytes) -> None:
    """What can be decoded is: of an animation the first frame, of a polyglot the picture."""
    told = await worker.post(EDITS, PLAIN | {"image": data_uri(raw)})

    assert told["data"][0]["b64_json"]


def part(name: str, content: bytes, more: bytes = b"") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'.encode()
    return b"--x\r\n" + head + more + b"\r\n\r\n" + content + b"\r\n"


NESTED = b"\r\nContent-Type: multipart/mixed; boundary=y"
FORMS: dict[str, bytes] = {
    "no end": part("prompt", b"a"),
    "no parts": b"--x--\r\n",
    "no name": b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n",
    "a form in it": part("prompt", b"--y\r\n\r\na\r\n--y--", NESTED) + b"--x--\r\n",
    "ten thousand pictures": part("image", b"a", b'; filename="a"') * 10_000 + b"--x--\r\n",
    "no UTF-8": part("prompt", b"\xff\xfe") + b"--x--\r\n",
    "a packed part": part("prompt", b"a", b"\r\nContent-Encoding: gzip") + b"--x--\r\n",
}


@pytest.mark.parametrize("what", FORMS)
async def test_a_broken_form(worker: Launched, what: str) -> None:
    """A form that cannot be read, or says nothing, is the client's mistake."""
    status, _ = await refused(worker, EDITS, FORMS[what], "multipart/form-data; boundary=x")

    assert status == (413 if "ten thousand" in what else 400)


JSON: dict[str, bytes] = {
    "deep": b'{"prompt": "a", "x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep inside the prompt": json.dumps(
        {"prompt": f"a <sd_cpp_extra_args>{'[' * DEEP}{']' * DEEP}</sd_cpp_extra_args>"}
    ).encode(),
    "deep LoRAs": json.dumps({"prompt": "a", "loras": "[" * DEEP}).encode(),
    "no number": b'{"prompt": "a", "cfg_scale": NaN}',
    "no end": b'{"prompt": "a", "cfg_scale": Infinity}',
    "a huge number": b'{"prompt": "a", "steps": 1e400}',
    "many digits": b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}",
    "a part of a step": b'{"prompt": "a", "steps": 1.5}',
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "a lone surrogate": b'{"prompt": "\\ud800"}',
    "a NUL": b'{"prompt": "a\\u0000b"}',
    "a long prompt": b'{"prompt": "' + b"a" * 1_000_000 + b'"}',
    "a list for a prompt": b'{"prompt": ["a"]}',
    "a list for a body": b'[{"prompt": "a"}]',
    "an object for a picture": b'{"prompt": "a", "image": {"image_url": {"url": 5}}}',
    "words for LoRAs": b'{"prompt": "a", "loras": [5]}',
    "a LoRA of no weight": b'{"prompt": "a", "loras": [{"name": "sound", "weight": NaN}]}',
    "no width": b'{"prompt": "a", "width": 0}',
    "a huge width": b'{"prompt": "a", "width": 2000000000}',
    "a wide one": b'{"prompt": "a", "size": "100000x64"}',
    "no steps": b'{"prompt": "a", "steps": 0}',
    "more steps": b'{"prompt": "a", "steps": -1}',
    "no pictures": b'{"prompt": "a", "n": 0}',
    "an empty name": b'{"prompt": "a", "loras": [{"name": ""}]}',
}


@pytest.mark.parametrize("path", [GENERATIONS, IMG2IMG])
@pytest.mark.parametrize("what", JSON)
async def test_a_bad_body(worker: Launched, what: str, path: str) -> None:
    """What would crash or hang an engine, or mean nothing, is refused before it."""
    status, _ = await refused(worker, path, JSON[what], "application/json")

    assert status == 400


async def test_of_two_fields_of_one_name_the_last_is_meant(worker: Launched) -> None:
    """Doubled keys are no error in JSON, and mean what other readers take them for."""
    raw = b'{"prompt": "a", "steps": 1, "seed": 5, "seed": 6}'
    headers = {"Content-Type": "application/json"}
    async with worker.session.post(GENERATIONS, data=raw, headers=headers) as answer:
        told = await answer.json()

    assert (answer.status, told["seed"]) == (200, 6)
