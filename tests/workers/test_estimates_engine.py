"""Estimates against the engines: their own plans, and what a real worker holds."""

from __future__ import annotations

import atexit
import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from llama_cpp import _utils, llama_cpp
from PIL import Image

from tests.workers import heads, sd_files
from tests.workers.drawn import data_uri, encoded
from tests.workers.launch import Launched, launched
from workers import files
from workers.florence2 import estimate as florence2_estimate
from workers.florence2.options import Florence2Options
from workers.llama import estimate as llama_estimate
from workers.llama import memory as llama_memory
from workers.llama.options import LlamaOptions
from workers.memory import MIB, Memory
from workers.sd import estimate as sd_estimate
from workers.sd.options import SdOptions

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]

# the package opens these when it is imported, and leaves them to the interpreter's last complaint
atexit.register(_utils.outnull_file.close)
atexit.register(_utils.errnull_file.close)

SHAPES = {
    "wide feed-forward": {
        "width": 4096,
        "inner": 11008,
        "words": 32000,
        "heads": 32,
        "kv_heads": 32,
    },
    "many words": {"width": 2560, "inner": 9728, "words": 151936, "heads": 20, "kv_heads": 4},
    "shared heads": {"width": 2048, "inner": 5632, "words": 32000, "heads": 32, "kv_heads": 4},
}


class Plan:
    """What the engine says that it would take: it loads no data, and allocates nothing."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        take = llama_cpp.llama_log_callback(lambda _, text, __: self._lines.append(text.decode()))
        self._callback = take  # C keeps only the address
        llama_cpp.llama_log_set(take, None)
        llama_cpp.llama_backend_init()

    def close(self) -> None:
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), None)

    def of(self, options: LlamaOptions) -> dict[str, float]:
        """Give the bytes of the weights, and the MiB of the cache and of the compute buffer."""
        self._lines.clear()
        params = llama_cpp.llama_model_default_params()
        params.no_alloc, params.load_mode = True, llama_cpp.LLAMA_LOAD_MODE_NONE
        model = llama_cpp.llama_model_load_from_file(options.model.encode(), params)
        assert model, "".join(self._lines[-3:])
        context = llama_cpp.llama_init_from_model(model, self._context(options))
        assert context, "".join(self._lines[-3:])
        told = {"weights": llama_cpp.llama_model_size(model)}
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)
        return told | {"cache": self._mib("llama_kv_cache: size"), "compute": self._mib("compute")}

    def _mib(self, what: str) -> float:
        found = re.search(rf"{what}.*?=\s*([\d.]+) MiB", "".join(self._lines))
        assert found, what
        return float(found[1])

    def _context(self, options: LlamaOptions) -> ctypes.Structure:
        types = {"f16": 1, "q8_0": 8}
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = llama_memory.n_ctx(options, files.read_gguf(options.model))
        params.n_batch, params.n_ubatch = options.n_batch, options.n_ubatch
        params.n_seq_max, params.kv_unified = options.n_parallel, True
        params.flash_attn_type = {"auto": -1, "off": 0}[options.flash_attn]
        params.type_k, params.type_v = types[options.type_k], types[options.type_v]
        return params  # type: ignore[no-any-return]  # the binding has no types


@pytest.fixture(scope="module")
def plan() -> Iterator[Plan]:
    made = Plan()
    yield made
    made.close()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n_ctx": 32768},
        {"flash_attn": "off"},
        {"n_ubatch": 128},
        {"type_k": "q8_0", "type_v": "q8_0"},
    ],
    ids=str,
)
def test_llama_is_reckoned_as_the_engine_plans(
    plan: Plan, tmp_path: Path, shape: dict[str, int], more: dict[str, Any]
) -> None:
    """Weights to the byte, the cache to what the log shows, the buffer to 6 %: real widths."""
    path = heads.llama(tmp_path / "m.gguf", layers=3, kind="Q4_K", **shape)
    options = LlamaOptions.model_validate({"model": str(path), **more})

    planned, found = plan.of(options), llama_estimate.estimate(options)

    assert sized(found, "weights") == planned["weights"]
    assert sized(found, "KV cache") / MIB == pytest.approx(planned["cache"], abs=0.01)
    assert sized(found, "compute buffers") / MIB == pytest.approx(planned["compute"], rel=0.06)


def sized(memory: Memory, what: str) -> int:
    parts = [p for p in memory.parts if p.what == what and p.place != "context"]
    return sum(part.size_bytes for part in parts)


def resident_bytes(worker: Launched, *, peak: bool = False) -> int:
    if not peak:
        return psutil.Process(worker.process.pid).memory_info().rss
    lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize("more", [{"flash_attn": "off"}, {"n_gpu_layers": 0}], ids=str)
async def test_llama_holds_what_was_reckoned(tmp_path: Path, more: dict[str, Any]) -> None:
    """A model of 400 MB at work, on a CPU, is resident as reckoned, within a tenth."""
    shape = {"layers": 8, "width": 1024, "inner": 2816, "words": 8000, "heads": 16, "kv_heads": 8}
    path = heads.llama(tmp_path / "m.gguf", kind="F32", **shape)
    options = {"model": str(path), "n_threads": 2, "n_ctx": 1024} | more
    found = llama_estimate.estimate(LlamaOptions.model_validate(options))

    async with launched("llama", options) as worker:
        await worker.post("/v1/completions", {"prompt": [5] * 1000, "max_tokens": 2})
        held = resident_bytes(worker)

    assert found.held_bytes("device", "host") == pytest.approx(held, rel=0.1)


async def test_sd_holds_what_was_reckoned(models: Path) -> None:
    """The tiny set is resident as reckoned, and at its peak while it paints 512x512."""
    options = sd_files.options(models)
    found = sd_estimate.estimate(SdOptions.model_validate(options))
    rung = next(r for r in found.requests if r.up_to_pixels == 512 * 512)

    async with launched("sd", options) as worker:
        held = resident_bytes(worker)
        body = {"prompt": "a red circle", "size": "512x512", "steps": 1}
        await worker.post("/v1/images/generations", body)
        peak = resident_bytes(worker, peak=True)

    assert found.held_bytes("device", "host") == pytest.approx(held, rel=0.15)
    assert found.held_bytes("device", "host") + rung.size_bytes == pytest.approx(peak, rel=0.15)


async def test_florence_holds_what_was_reckoned(models: Path) -> None:
    """The tiny model at work is resident as reckoned, and its weights are its parameters."""
    options = {"model": str(models / "florence2"), "n_threads": 1}
    found = florence2_estimate.estimate(Florence2Options.model_validate(options))
    picture = data_uri(encoded(Image.new("RGB", (320, 320), "red")))

    async with launched("florence2", options) as worker:
        await worker.post("/v1/images/descriptions", {"image": picture})
        held = resident_bytes(worker)
        facts = worker.facts

    value_bytes = {"float32": 4, "bfloat16": 2}[facts["dtype"]]
    buffers = 100 * 32  # places in time, times the decoder's width: the file has them too
    assert sized(found, "weights") == (facts["parameters"] + buffers) * value_bytes
    assert found.held_bytes("device", "host") == pytest.approx(held, rel=0.15)
