"""stable-diffusion.cpp 0.4.7 by its C functions; the binding's class leaks, dangles and crashes.

One context, one thread: all calls come from the same one (`painter.Painter`).
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import stable_diffusion_cpp.stable_diffusion_cpp as sd
from PIL import Image

from workers import serve
from workers.memory import MIB
from workers.sd import device, pixels, stop
from workers.sd.job import Job, Step
from workers.sd.options import COMPONENTS, SdOptions

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")  # sd_log_level_t
INFO, WARNING = 1, 2
KEPT_LINES = 6
PREVIEWS = {
    "none": sd.Preview.PREVIEW_NONE,
    "proj": sd.Preview.PREVIEW_PROJ,
    "tae": sd.Preview.PREVIEW_TAE,
}
EVERY_STEP = 1
SAMPLING_BEGINS, SAMPLING_ENDS = " - generating image: ", " - sampling completed"
_NO_MEMORY = re.compile(
    r"alloc .*(?:buffer|graph) failed|cudaMalloc failed|out of memory|OutOfDeviceMemory|bad_alloc"
    r"|failed to allocate|CUBLAS_STATUS_ALLOC_FAILED|Resource temporarily unavailable",
    re.IGNORECASE,
)
_IN_VAE = re.compile(r"vae (?:de|en)code compute failed")
_BAD_FILE = re.compile(r"not in model file|wrong shape|get sd version|read tensor data failed")

_lib = sd._lib  # noqa: SLF001  # the binding wraps only some of the functions
_lib.sd_ctx_params_init.argtypes = [ctypes.POINTER(sd.sd_ctx_params_t)]
_lib.sd_img_gen_params_init.argtypes = [ctypes.POINTER(sd.sd_img_gen_params_t)]
for _by_name in (_lib.str_to_sample_method, _lib.str_to_scheduler, _lib.str_to_sd_type):
    _by_name.argtypes, _by_name.restype = [ctypes.c_char_p], ctypes.c_int


class PaintFailed(Exception):
    """The engine made no picture; its context is as good as before."""


class LoraUnfit(PaintFailed):
    """The engine cannot make anything of the LoRAs, though by their heads they fit the model."""


class OutOfMemory(PaintFailed):
    """There was no memory for a picture of this size."""


class VaeOutOfMemory(OutOfMemory):
    """There was none for the VAE, which can work in tiles."""


class Engine:
    """A loaded model, or one still to load."""

    def __init__(self, cannot_stop: Callable[[float], None]) -> None:
        """`cannot_stop` is told, at each step of a picture nobody wants, the seconds it needs."""
        self._cannot_stop = cannot_stop
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._log = sd.sd_log_callback(self._take_line)  # C keeps only the addresses of these
        self._progress = sd.sd_progress_callback(lambda *step: self._at_step(*step[:3]))
        self._stopper = stop.load()
        self._load_progress: serve.Progress = lambda _: None
        self._sampling = False
        self._left = threading.Event()
        self._ctx: Any = None
        self._tell: Callable[[Step], None] = lambda _: None
        self._newest: Image.Image | None = None
        self._preview = sd.sd_preview_callback(self._take_preview)
        sd.sd_set_log_callback(self._log, None)
        if self._stopper is not None:
            self._stopper.ask(self._at_step)
            self._stopper.spare(_lib.ggml_backend_graph_compute)
            sd.sd_set_progress_callback(self._stopper.progress, None)
            _lib.ggml_set_abort_callback(self._stopper.aborted)
        else:
            sd.sd_set_progress_callback(self._progress, None)

    @property
    def can_stop(self) -> bool:
        """Whether a picture under way can be stopped at its next step."""
        return self._stopper is not None

    def load(self, options: SdOptions, flash_attn: bool, progress: serve.Progress) -> None:  # noqa: FBT001  # the family's choice
        """Load the weights. Raises serve.LoadFailed."""
        self._load_progress = progress
        taken = self._preview if options.preview != "none" else sd.sd_preview_callback()
        sd.sd_set_preview_callback(taken, PREVIEWS[options.preview], EVERY_STEP, True, False, None)  # noqa: FBT003  # C
        params = _context_params(options)
        params.diffusion_flash_attn = flash_attn
        self._lines.clear()
        try:
            ctx = self._call(_lib.new_sd_ctx, params)
        except stop.Thrown as error:
            self._lines.append(str(error))
            ctx = None
        if not ctx:
            raise self._load_failure()
        self._ctx = ctypes.cast(ctx, sd.sd_ctx_t_p_ctypes)
        self._load_progress = lambda _: None

    def paint(
        self, job: Job, seed: int, left: threading.Event, tell: Callable[[Step], None]
    ) -> Image.Image:
        """Paint one picture, RGB of the job's size; `tell` hears of each step, in this thread.

        Raises PaintFailed, stop.Stopped.
        """
        if left.is_set():
            raise stop.Stopped
        if job.vae_bytes is not None and not job.vae_tiling:
            _hold_against(job.vae_bytes, job.room_bytes)
        keep: list[object] = []
        params = _picture_params(job, keep)
        params.seed = seed
        self._left, self._tell, self._newest = left, tell, None
        self._lines.clear()
        try:
            result = self._call(_lib.generate_image, self._ctx, params)
        except stop.Thrown as error:
            raise self._thrown_failure(str(error), job) from error
        finally:
            self._sampling = False
        if not result:
            raise self._paint_failure("; ".join(self._lines) or "the engine gave no reason")
        image = pixels.taken(result)
        if image is None:
            raise PaintFailed("the engine gave an empty picture")
        return image

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Call a C function, its last argument by reference; by the stopper if there is one."""
        *first, last = arguments
        if self._stopper is None:
            return function(*first, ctypes.byref(last))
        pointers = [*first, ctypes.pointer(last), None]
        return self._stopper.call(function, pointers[0], pointers[1])

    def _at_step(self, step: int, steps: int, step_s: float) -> bool:
        """Hear of a step; the engine counts tensors, LoRAs and tiles by the same callback.

        Returns whether to stop, and only while sampling: loaders have threads that must not be
        left behind.
        """
        if self._ctx is None:
            self._load_progress(step / max(steps, 1))
            return False
        if not self._sampling:
            return False
        if not self._left.is_set():
            self._tell(Step(step, steps, step_s, self._newest))
            return False
        if self._stopper is None:
            self._cannot_stop((steps - step) * step_s)
        return True

    def _take_preview(
        self,
        _step: int,
        count: int,
        frames: Any,
        _noisy: bool,  # noqa: FBT001  # C
        _data: object,
    ) -> None:
        """Keep the newest preview; the frames live no longer than this call."""
        if self._sampling and count > 0:
            self._newest = pixels.copied(frames[0])

    def _take_line(self, level: int, text: bytes, _data: object) -> None:
        """Pass on one line of the engine's log; may come from any of its threads."""
        line = text.decode(errors="replace").strip()
        if level == INFO and (SAMPLING_BEGINS in line or SAMPLING_ENDS in line):
            self._sampling = SAMPLING_BEGINS in line
        if level >= INFO and line:
            sys.stderr.write(f"{LEVELS[min(level, 3)]}: {line}\n")  # one write, for threads
        if level >= WARNING and line and line not in self._lines:
            self._lines.append(line)

    def _load_failure(self) -> serve.LoadFailed:
        told = "; ".join(dict.fromkeys(self._lines)) or "the engine gave no reason"
        if _NO_MEMORY.search(told):
            return serve.LoadFailed(
                "out_of_memory", f"{told}; try offload_params_to_cpu or a smaller quant"
            )
        return serve.LoadFailed("bad_file" if _BAD_FILE.search(told) else "engine_error", told)

    def _thrown_failure(self, told: str, job: Job) -> PaintFailed:
        """Say what an exception or an assertion of the engine was about."""
        _, assertion, condition = told.partition("GGML_ASSERT")  # after a path of the build
        told = f"{assertion}{condition}" or told
        failure = self._paint_failure("; ".join([*self._lines, told]))
        if job.loras and assertion and not isinstance(failure, OutOfMemory):
            return LoraUnfit(told)
        return failure

    def _paint_failure(self, told: str) -> PaintFailed:
        if not _NO_MEMORY.search(told):
            return PaintFailed(told)
        return VaeOutOfMemory(told) if _IN_VAE.search(told) else OutOfMemory(told)


def _hold_against(needed_bytes: int, room_bytes: int | None) -> None:
    """Give up before a step is taken, rather than after the last one. Raises VaeOutOfMemory."""
    free_bytes = device.free_bytes()
    most_bytes = free_bytes if room_bytes is None else min(free_bytes, room_bytes)
    if needed_bytes > most_bytes:
        needed, most = needed_bytes // MIB, most_bytes // MIB
        raise VaeOutOfMemory(f"decoding takes about {needed} MiB, and there are {most}")


def _context_params(options: SdOptions) -> Any:
    params = sd.sd_ctx_params_t()
    _lib.sd_ctx_params_init(ctypes.byref(params))
    for name in ("model", *COMPONENTS):
        path = options.path_of(name)
        if path is not None:
            setattr(params, f"{name}_path", os.fsencode(path))
    for name in (
        *("enable_mmap", "offload_params_to_cpu", "max_vram", "keep_clip_on_cpu"),
        *("keep_vae_on_cpu", "diffusion_conv_direct", "vae_conv_direct"),
    ):
        setattr(params, name, getattr(options, name))
    params.vae_decode_only = False
    params.free_params_immediately = False
    params.tae_preview_only = options.has_preview_tae
    # the other modes leave traces of a LoRA in the weights after it is gone
    params.lora_apply_mode = sd.LoraApplyMode.LORA_APPLY_AT_RUNTIME
    if options.n_threads is not None:
        params.n_threads = options.n_threads
    if options.type is not None:
        params.wtype = _lib.str_to_sd_type(options.type.encode())
    return params


def _picture_params(job: Job, keep: list[object]) -> Any:
    """Fill in the C struct; `keep` gets what must live as long as it."""
    params = sd.sd_img_gen_params_t()
    _lib.sd_img_gen_params_init(ctypes.byref(params))  # C's defaults: eta and flow_shift "auto"
    params.prompt = job.prompt.encode()
    params.negative_prompt = job.negative_prompt.encode()
    params.width, params.height, params.batch_count = job.width, job.height, 1
    params.vae_tiling_params.enabled = job.vae_tiling
    params.strength = job.strength
    if job.clip_skip is not None:
        params.clip_skip = job.clip_skip
    _fill_sampling(params.sample_params, job)
    params.init_image = pixels.given(job.init, keep)
    params.mask_image = pixels.given(job.mask, keep)
    if job.references:
        references = (sd.sd_image_t * len(job.references))(
            *(pixels.given(reference, keep) for reference in job.references)
        )
        keep.append(references)
        params.ref_images, params.ref_images_count = references, len(job.references)
        params.auto_resize_ref_image = False  # the engine's own way aborts on thin pictures
    if job.loras:
        loras = (sd.sd_lora_t * len(job.loras))(
            *(sd.sd_lora_t(False, lora.weight, os.fsencode(lora.path)) for lora in job.loras)  # noqa: FBT003  # C struct
        )
        keep.append(loras)
        params.loras, params.lora_count = loras, len(job.loras)
    return params


def _fill_sampling(sampling: Any, job: Job) -> None:
    sampling.sample_steps = job.steps
    sampling.guidance.txt_cfg = job.cfg_scale
    if job.guidance is not None:
        sampling.guidance.distilled_guidance = job.guidance
    if job.sample_method is not None:
        sampling.sample_method = _lib.str_to_sample_method(job.sample_method.encode())
    if job.scheduler is not None:
        sampling.scheduler = _lib.str_to_scheduler(job.scheduler.encode())
    if job.flow_shift is not None:
        sampling.flow_shift = job.flow_shift
