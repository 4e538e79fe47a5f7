"""Options and files into a model and a context, or a LoadFailed that says why not."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_cpp import llama_cpp

from workers import files, serve
from workers.llama import checks, memory
from workers.llama.enginelog import EngineLog
from workers.llama.options import LlamaOptions
from workers.llama.vision import CannotRead, Vision
from workers.llama.vocabulary import Vocabulary
from workers.memory import available_bytes

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
CACHE_TYPES = {  # ggml_type
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
ABORTED = "the load was stopped"

Interrupted = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, and the context to use it through."""

    options: LlamaOptions
    header: files.Header
    model: int
    context: int
    vocabulary: Vocabulary
    vision: Vision | None
    n_ctx: int  # cells, and the most that one request may use
    n_sequences: int
    log: EngineLog
    keep_alive: object  # callbacks that C has only the addresses of

    @property
    def name(self) -> str:
        return Path(self.options.model).stem

    @property
    def has_memory(self) -> bool:
        """Say whether it is a decoder; an encoder keeps no KV cache."""
        return bool(llama_cpp.llama_get_memory(self.context))


class Loader:
    """Loads one model; `stop` makes a load under way give up."""

    def __init__(self, options: LlamaOptions, progress: serve.Progress, log: EngineLog) -> None:
        self._options = options
        self._progress = progress
        self._log = log
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def load(self, interrupted: Interrupted) -> Loaded:
        """Load, with `interrupted` asked between the steps of each later computation."""
        options = self._options
        header = checks.header("model", options.model)
        if isinstance(header, serve.Problem):  # since the check
            raise serve.LoadFailed(header.reason, header.message)
        n_ctx = memory.n_ctx(options, header)
        self._refuse_too_large(header, n_ctx)
        llama_cpp.llama_backend_init()
        share = _share_of_model(options)
        model = self._load_model(share)
        abort = llama_cpp.ggml_abort_callback(lambda _: interrupted())
        context = self._make_context(model, header, n_ctx, abort)
        vision = self._load_vision(model, share) if options.mmproj else None
        vocabulary = Vocabulary(model)
        self._warm_up(context, vocabulary)
        self._progress(1.0)
        return Loaded(
            options=options,
            header=header,
            model=model,
            context=context,
            vocabulary=vocabulary,
            vision=vision,
            n_ctx=n_ctx,
            n_sequences=llama_cpp.llama_n_seq_max(context),
            log=self._log,
            keep_alive=abort,
        )

    def _refuse_too_large(self, header: files.Header, n_ctx: int) -> None:
        """Refuse a context that the host cannot hold: the kernel would kill us for it."""
        if header.architecture in checks.ENCODERS or self._cache_is_on_gpu():
            return
        needed = memory.kv_cache_bytes(self._options, header)
        free = available_bytes()
        if needed > free:
            raise serve.LoadFailed(
                "out_of_memory",
                f"n_ctx {n_ctx} needs {memory.as_gib(needed)} for the KV cache and"
                f" {memory.as_gib(free)} are available; use a lower n_ctx, or type_k and"
                " type_v q8_0",
            )

    def _cache_is_on_gpu(self) -> bool:
        return self._options.n_gpu_layers != 0 and llama_cpp.llama_supports_gpu_offload()

    def _load_model(self, share: float) -> int:
        options = self._options
        callback = llama_cpp.llama_progress_callback(lambda part, _: self._go_on(part * share))
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = options.n_gpu_layers
        params.main_gpu = options.main_gpu
        params.split_mode = SPLIT_MODES[options.split_mode]
        params.load_mode = (1 if options.use_mmap else 0) + (2 if options.use_mlock else 0)
        params.progress_callback = callback
        no_devices = (ctypes.c_void_p * 1)()
        if options.n_gpu_layers == 0:  # else each GPU would get a context, and a buffer
            params.devices = ctypes.addressof(no_devices)
        split = _tensor_split(options)
        if split is not None:
            params.tensor_split = split
        model = llama_cpp.llama_model_load_from_file(os.fsencode(options.model), params)
        if not model:
            raise self._log.failure(ABORTED if self._stopped else f"cannot load {options.model}")
        return int(model)

    def _go_on(self, part: float) -> bool:
        self._progress(part)
        return not self._stopped

    def _make_context(self, model: int, header: files.Header, n_ctx: int, abort: object) -> int:
        options = self._options
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch, params.n_ubatch = options.n_batch, min(options.n_ubatch, options.n_batch)
        params.n_seq_max = memory.n_sequences(options)
        params.kv_unified = True  # sequences share the cells
        params.flash_attn_type = FLASH_ATTENTION[options.flash_attn]
        params.type_k, params.type_v = CACHE_TYPES[options.type_k], CACHE_TYPES[options.type_v]
        params.rope_freq_base = options.rope_freq_base
        params.rope_freq_scale = options.rope_freq_scale
        params.abort_callback = abort
        params.no_perf = True
        if options.n_threads is not None:
            params.n_threads = params.n_threads_batch = options.n_threads
        if options.n_threads_batch is not None:
            params.n_threads_batch = options.n_threads_batch
        if options.embedding:
            params.embeddings = True
            params.pooling_type = _pooling(options, header)
            params.n_batch = params.n_ubatch = n_ctx  # pooling looks at whole texts
        context = llama_cpp.llama_init_from_model(model, params)
        if not context:
            raise self._log.failure(f"cannot make a context of {n_ctx} tokens")
        return int(context)

    def _load_vision(self, model: int, share: float) -> Vision:
        try:
            return Vision(
                model, self._options, lambda part: self._go_on(share + part * (1 - share))
            )
        except CannotRead:
            raise self._log.failure(
                f"{self._options.mmproj} does not fit {self._options.model}"
            ) from None

    def _warm_up(self, context: int, vocabulary: Vocabulary) -> None:
        """Compute one token: the first time is slow, and what is broken shows."""
        token = (llama_cpp.llama_token * 1)(vocabulary.warm_up_token())
        cache = llama_cpp.llama_get_memory(context)
        compute = llama_cpp.llama_decode if cache else llama_cpp.llama_encode
        llama_cpp.llama_set_warmup(context, True)  # noqa: FBT003  # C: touch every expert
        failed = compute(context, llama_cpp.llama_batch_get_one(token, 1))
        llama_cpp.llama_set_warmup(context, False)  # noqa: FBT003  # C
        if failed:
            raise self._log.failure("the model does not compute")
        if cache:
            llama_cpp.llama_memory_clear(cache, True)  # noqa: FBT003  # C: the data too


def _pooling(options: LlamaOptions, header: files.Header) -> int:
    """Choose the pooling: as told, else as in the file, else the mean."""
    if options.pooling_type is not None:
        return POOLING[options.pooling_type]
    if "cls.weight" in header.shapes or "cls.output.weight" in header.shapes:
        return POOLING["rank"]
    return header.number("pooling_type") or POOLING["mean"]


def _share_of_model(options: LlamaOptions) -> float:
    """Give the model's part of all the bytes to load."""
    sizes = [Path(path).stat().st_size for path in (options.model, options.mmproj) if path]
    return sizes[0] / sum(sizes)


def _tensor_split(options: LlamaOptions) -> ctypes.Array[ctypes.c_float] | None:
    if options.tensor_split is None:
        return None
    most = llama_cpp.llama_max_devices()
    if len(options.tensor_split) > most:
        raise serve.LoadFailed("bad_options", f"tensor_split has more than {most} devices")
    split: ctypes.Array[ctypes.c_float] = (ctypes.c_float * most)(*options.tensor_split)
    return split
