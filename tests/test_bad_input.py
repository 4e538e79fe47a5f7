"""Bad files and bad requests, through the whole program with real engines."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.proxy.painted import PAINTER
from tests.proxy.served import Hotseat, served

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

CONFIG = (
    PAINTER
    + """
models:
  chat: {{llama: {{model: {models}/chat.gguf, n_threads: 1}}}}
  missing: {{llama: {{model: nowhere.gguf}}}}
  truncated: {{llama: {{model: truncated.gguf}}}}
  page: {{llama: {{model: page.gguf}}}}
  pointer: {{llama: {{model: pointer.gguf}}}}
  projector: {{llama: {{model: {models}/llava-mmproj.gguf}}}}
  swapped: {{llama: {{model: {models}/chat.gguf, mmproj: {models}/embed.gguf}}}}
  cut-painter:
    sd: {{diffusion_model: cut.safetensors, llm: {models}/image/llm.gguf}}
  bare: {{sd: {{model: {models}/image/diffusion.safetensors}}}}
  no-tokenizer: {{florence2: {{model: florence2}}}}
  typo: {{llama: {{model: {models}/chat.gguf, n_ctxx: 5}}}}
  florence-2: {{florence2: {{model: {models}/florence2, n_threads: 1}}}}
  painter:
    sd:
      <<: *painter
      defaults: {{width: 64, height: 64, steps: 1}}
  llava:
    llama:
      model: {models}/chat.gguf
      mmproj: {models}/llava-mmproj.gguf
      n_threads: 1
"""
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hotseat]:
    """Serve sound and damaged models."""
    folder = tmp_path_factory.mktemp("bad")
    whole = (models / "chat.gguf").read_bytes()
    (folder / "truncated.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "page.gguf").write_text("<!DOCTYPE html><html>404 not found</html>")
    (folder / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    painter = (models / "image" / "diffusion.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(painter[:-1000])
    shutil.copytree(models / "florence2", folder / "florence2")
    (folder / "florence2" / "tokenizer.json").unlink()
    async with served(CONFIG.format(models=models), folder) as one:
        yield one


BROKEN = {
    "missing": ("chat", "nowhere.gguf"),
    "truncated": ("chat", "truncated.gguf"),
    "page": ("chat", "web page"),
    "pointer": ("chat", "lfs pointer"),
    "projector": ("chat", "mmproj"),
    "swapped": ("chat", "mmproj"),
    "cut-painter": ("images", "cut.safetensors"),
    "bare": ("images", "diffusion_model"),
    "no-tokenizer": ("chat", "tokenizer.json"),
    "typo": ("chat", "n_ctxx"),
}


@pytest.mark.parametrize("model", BROKEN)
async def test_a_broken_model_is_told_and_costs_nobody_the_seat(
    hotseat: Hotseat, model: str
) -> None:
    """The answer names the file or option and the mistake; the seated model stays seated."""
    kind, word = BROKEN[model]
    assert (await hotseat.chat("chat")).status == 200
    pid = (await hotseat.running())["chat"]["pid"]
    if kind == "chat":
        answer = await hotseat.chat(model)
    else:
        body = {"model": model, "prompt": "x"}
        answer = await hotseat.post("/v1/images/generations", json=body)

    assert (answer.status, answer.error["code"]) == (502, "worker_start_failed")
    assert word.lower() in answer.error["message"].lower()
    assert (await hotseat.running())["chat"]["pid"] == pid


def picture_chat(model: str, url: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "hi"}]
    return {"model": model, "messages": [{"role": "user", "content": parts}]}


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "an undecodable picture, llava": (
        "chat/completions",
        picture_chat("llava", "data:image/png;base64,AAAA"),
    ),
    "an undecodable picture, florence-2": (
        "chat/completions",
        picture_chat("florence-2", "data:image/png;base64,AAAA"),
    ),
    "a picture on the net": (
        "chat/completions",
        picture_chat("llava", "http://127.0.0.1:1/x.png"),
    ),
    "a picture on the disk": ("chat/completions", picture_chat("llava", "file:///etc/passwd")),
    "a size that is none": (
        "images/generations",
        {"model": "painter", "prompt": "x", "size": "banana"},
    ),
    "a huge size": (
        "images/generations",
        {"model": "painter", "prompt": "x", "size": "100000x100000"},
    ),
    "no steps": ("images/generations", {"model": "painter", "prompt": "x", "steps": 0}),
    "a prompt that is a number": ("images/generations", {"model": "painter", "prompt": 5}),
    "too many pictures": ("images/generations", {"model": "painter", "prompt": "x", "n": 1000}),
    "a wrong type": ("chat/completions", {"model": "llava", "messages": [], "temperature": "hot"}),
    "an unknown task": ("images/descriptions", {"model": "florence-2", "task": "sing"}),
}


@pytest.mark.parametrize("case", REQUESTS)
async def test_a_bad_request_is_a_400_and_the_worker_lives(hotseat: Hotseat, case: str) -> None:
    """The engine never sees it: the error names the mistake, and the worker serves on."""
    path, body = REQUESTS[case]
    answer = await hotseat.post(f"/v1/{path}", json=body)
    before = (await hotseat.running()).get(body["model"], {}).get("pid")  # None: refused by us
    again = await hotseat.post(f"/v1/{path}", json=body)

    assert answer.status == again.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert len(answer.error["message"]) > 10
    assert (await hotseat.running()).get(body["model"], {}).get("pid") == before
