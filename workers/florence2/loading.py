"""Directory → Engine: which device, which number type, and what damaged files look like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import AutoProcessor, Florence2ForConditionalGeneration

from workers import serve
from workers.florence2 import checks, tasks
from workers.florence2.engine import Engine, is_out_of_memory
from workers.florence2.options import Florence2Options
from workers.florence2.rows import Look
from workers.memory import return_freed

WARM_UP_SIDE_PX = 64
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FETCH = """
import sys, huggingface_hub
huggingface_hub.snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:])
"""


def load(options: Florence2Options, progress: serve.Progress) -> Engine:
    """Load the model and answer one question with it. Raises LoadFailed."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.n_threads is not None:
        torch.set_num_threads(options.n_threads)
    device = _device_of(options.device)
    directory = _directory_of(options)
    progress(0.1)
    try:
        engine = _engine_of(directory, device, options, progress)
        _warm_up(engine)
        return_freed()  # of the base model's load, a sixth of what it holds then
    except serve.LoadFailed:
        raise
    except Exception as error:  # from_pretrained raises nearly everything
        told = f"{directory}: {type(error).__name__}: {_first_line(error)}"
        raise serve.LoadFailed(_reason_of(error), told) from error
    progress(1.0)
    return engine


def _warm_up(engine: Engine) -> None:
    pixels = engine.prepare(Image.new("RGB", (WARM_UP_SIDE_PX, WARM_UP_SIDE_PX)))
    look = Look.at(pixels, [tasks.Question(tasks.CAPTION)], max_tokens=2)
    engine.answer(engine.look(look))
    look.answers[0].result()


def _engine_of(
    directory: Path, device: torch.device, options: Florence2Options, progress: serve.Progress
) -> Engine:
    processor = AutoProcessor.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False, backend="pil"
    )
    progress(0.2)
    model, told = Florence2ForConditionalGeneration.from_pretrained(
        directory,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=_dtype_of(options.dtype, device),
        output_loading_info=True,
    )
    if told["missing_keys"]:  # they would be random numbers
        names = sorted(told["missing_keys"])
        raise serve.LoadFailed(
            "bad_file",
            f"{directory}: {len(names)} tensors are missing, {names[0]} first;"
            " fetch the weights again",
        )
    progress(0.7)
    model.eval().to(device)
    progress(0.8)
    return Engine(model, processor, options)


def _directory_of(options: Florence2Options) -> Path:
    """Find the model's directory, after a download when there is none and the options allow."""
    if checks.directory_of(options.model) is None and options.download:
        _fetch(options.model)
    found = checks.problems(options)
    directory = checks.directory_of(options.model)
    if found or directory is None:
        told = "; ".join(problem.message for problem in found)
        raise serve.LoadFailed("bad_file", told or f"the hub has no usable {options.model}")
    return directory


def _fetch(repository: str) -> None:
    """Fetch into the hub cache, in another process: this one went offline when it began."""
    done = subprocess.run(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", FETCH, repository, *checks.PATTERNS],
        env=os.environ | {"HF_HUB_OFFLINE": "0"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason told"]
        raise serve.LoadFailed("bad_file", f"cannot fetch {repository}: {' '.join(lines[-2:])}")


def _device_of(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        told = f"device: {name} is not there, torch {torch.__version__} sees {count} CUDA devices"
        raise serve.LoadFailed("bad_options", told)
    return device


def _dtype_of(name: str, device: torch.device) -> torch.dtype:
    """Resolve `auto`. It is never left to the checkpoint: float16 on a CPU is 20 times slower."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.float16
    # torch has no public name for these questions
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return torch.bfloat16 if fast else torch.float32


def _reason_of(error: Exception) -> serve.Reason:
    if is_out_of_memory(error):
        return "out_of_memory"
    return "engine_error" if isinstance(error, torch.AcceleratorError) else "bad_file"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
