"""llama-server's flags, and the options of a `llama:` entry that say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from proxy.moving.flags import (
    Flag,
    NoCounterpart,
    Reading,
    Setting,
    Table,
    Value,
    granted,
    left_out,
    named,
    number,
    one_of,
    only,
    option,
    switch,
    text,
    whole,
)
from proxy.moving.words import Word

PROGRAMS = frozenset(("llama-server",))
ENVIRONMENT = ("LLAMA_", "MTMD_", "HF_TOKEN")
"""Variables by which llama-server takes flags too."""

PARALLEL = 4  # sequences and requests at once, unless the entry says otherwise
CACHE = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
FLASH = {
    **dict.fromkeys(("on", "1", "true", "enabled"), "on"),
    **dict.fromkeys(("off", "0", "false", "disabled"), "off"),
    **dict.fromkeys(("auto", "-1"), "auto"),
}


def _llama(*path: str) -> tuple[str, ...]:
    return ("llama", *path)


def _default(name: str) -> tuple[str, ...]:
    return _llama("defaults", name)


def _flash(word: Word) -> Sequence[Setting]:
    value = FLASH.get(word.value, "on")  # alone it is the old spelling
    return () if value == "auto" else (Setting(_llama("flash_attn"), value),)


def _layers(word: Word) -> Sequence[Setting]:
    if word.value in ("auto", "all", "-1", "-2"):
        return ()
    if word.value == "0":
        return (Setting(("device",), "cpu", remark="was -ngl 0"),)
    return option(_llama("n_gpu_layers"), whole(1)).becomes(word)


def _devices(word: Word) -> Sequence[Setting]:
    """Take `none`, and CUDA's names: those are the GPUs by index."""
    if word.value == "none":
        return (Setting(("device",), "cpu", remark="was --device none"),)
    found = [re.fullmatch(r"CUDA(\d+)", name) for name in word.value.split(",")]
    gpus: list[int | str] = [int(one[1]) for one in found if one is not None]
    if len(gpus) < len(found):
        raise ValueError("only none and CUDA's devices can be had")
    return (Setting(("gpu",), gpus[0] if len(gpus) == 1 else gpus),)


def _shares(word: Word) -> Value:
    parts = re.split(r"[,/]", word.value)
    if not all(re.fullmatch(r"\d+(\.\d+)?|\.\d+", part) for part in parts):
        raise ValueError("the option takes numbers")
    return [float(part) for part in parts]


def _template(word: Word) -> Value:
    if "{%" not in word.value and "{{" not in word.value:
        raise ValueError("templates that have only a name cannot be had")
    return word.text


def _template_file(word: Word) -> Value:
    if not word.value.endswith(".jinja"):
        raise ValueError("the option takes a file that ends in .jinja")
    return word.text


def _load_mode(word: Word) -> Sequence[Setting]:
    match word.value:
        case "auto" | "mmap":
            return ()
        case "none":
            return (Setting(_llama("use_mmap"), value=False),)
        case "mmap+mlock":
            return (Setting(_llama("use_mlock"), value=True),)
        case _:
            raise ValueError("only auto, none, mmap and mmap+mlock can be had")


def _on(name: str, value: Value = True) -> Flag:  # noqa: FBT002  # a YAML value
    return switch(Setting(_llama(name), value))


_RANK = switch(Setting(_llama("embedding"), value=True), Setting(_llama("pooling_type"), "rank"))

FLAGS: Table = dict(
    flag
    for flags in (
        # files
        named("-m", "--model", flag=option(_llama("model"), text)),
        named("-mm", "--mmproj", flag=option(_llama("mmproj"), text)),
        named("--chat-template", flag=option(_llama("chat_template"), _template)),
        named("--chat-template-file", flag=option(_llama("chat_template"), _template_file)),
        # what it serves
        named("--embedding", "--embeddings", flag=_on("embedding")),
        named("--rerank", "--reranking", flag=_RANK),
        named(
            "--pooling",
            flag=option(_llama("pooling_type"), one_of("none", "mean", "cls", "last", "rank")),
        ),
        # context and memory
        named("-c", "--ctx-size", flag=option(_llama("n_ctx"), whole(0, (1 << 31) - 1))),
        named("-np", "--parallel", flag=option(_llama("n_parallel"), whole(1, 64, unset=("-1",)))),
        named("-b", "--batch-size", flag=option(_llama("n_batch"), whole(32, 1 << 16))),
        named("-ub", "--ubatch-size", flag=option(_llama("n_ubatch"), whole(32, 1 << 16))),
        named("-ctk", "--cache-type-k", flag=option(_llama("type_k"), one_of(*CACHE))),
        named("-ctv", "--cache-type-v", flag=option(_llama("type_v"), one_of(*CACHE))),
        named("-fa", "--flash-attn", flag=Flag(1, _flash, optional=frozenset(FLASH))),
        named("--rope-freq-base", flag=option(_llama("rope_freq_base"), number(0))),
        named("--rope-freq-scale", flag=option(_llama("rope_freq_scale"), number(0))),
        named("--mlock", flag=_on("use_mlock")),
        named("--no-mmap", flag=_on("use_mmap", value=False)),
        named("-lm", "--load-mode", flag=Flag(1, _load_mode)),
        # where it runs
        named("-ngl", "--gpu-layers", "--n-gpu-layers", flag=Flag(1, _layers)),
        named("-dev", "--device", flag=Flag(1, _devices)),
        named("-mg", "--main-gpu", flag=option(_llama("main_gpu"), whole(0))),
        named(
            "-sm",
            "--split-mode",
            flag=option(_llama("split_mode"), one_of("none", "layer", "row")),
        ),
        named("-ts", "--tensor-split", flag=option(_llama("tensor_split"), _shares)),
        named("-t", "--threads", flag=option(_llama("n_threads"), whole(1, 512, unset=("-1",)))),
        named(
            "-tb",
            "--threads-batch",
            flag=option(_llama("n_threads_batch"), whole(1, 512, unset=("-1",))),
        ),
        # what a request gets that does not say otherwise
        named("--temp", "--temperature", flag=option(_default("temperature"), number(0))),
        named("--top-k", flag=option(_default("top_k"), whole(0))),
        named("--top-p", flag=option(_default("top_p"), number(1e-9, 1))),
        named("--min-p", flag=option(_default("min_p"), number(0, 1))),
        named("--presence-penalty", flag=option(_default("presence_penalty"), number(-2, 2))),
        named("--frequency-penalty", flag=option(_default("frequency_penalty"), number(-2, 2))),
        named("--repeat-penalty", flag=option(_default("repeat_penalty"), number(1e-9))),
        named("--repeat-last-n", flag=option(_default("repeat_last_n"), whole(0, 1 << 16))),
        named(
            "-n",
            "--predict",
            "--n-predict",
            flag=option(_default("max_tokens"), whole(1, unset=("-1",))),
        ),
        named("-s", "--seed", flag=option(_default("seed"), whole(0, unset=("-1",)))),
        # so it is with the bundled worker
        named("--port", flag=granted(1)),
        named("--host", flag=left_out(1)),
        named("--jinja", "-cb", "--cont-batching", "-kvu", "--kv-unified", flag=left_out()),
        named("--mmap", "--no-context-shift", "--cache-prompt", "--warmup", flag=left_out()),
        named("--kv-offload", "-kvo", "--mmproj-auto", "--mmproj-offload", flag=left_out()),
        named("-e", "--escape", "--repack", "--op-offload", flag=left_out()),
        named("-fit", "--fit", flag=only("off")),
        named("--reasoning-format", flag=only("none")),
        named("--embd-normalize", flag=only("2")),
        named("--rope-scaling", flag=only("none")),
        # no answer is another one without it
        named("-v", "--verbose", "--log-verbose", "--log-disable", flag=left_out()),
        named("--log-prefix", "--no-log-prefix", flag=left_out()),
        named("--log-timestamps", "--no-log-timestamps", flag=left_out()),
        named("--perf", "--no-perf", "--no-warmup", "--offline", flag=left_out()),
        named("--ui", "--webui", "--no-ui", "--no-webui", flag=left_out()),
        named("--metrics", "--slots", "--no-slots", flag=left_out()),
        named("-lv", "--verbosity", "--log-verbosity", "--log-file", flag=left_out(1)),
        named("-a", "--alias", "--tags", "-to", "--timeout", flag=left_out(1)),
        named("--threads-http", "--sse-ping-interval", "-dt", "--defrag-thold", flag=left_out(1)),
        named(
            "--log-colors",
            flag=Flag(1, lambda _: (), frozenset(("on", "off", "auto")), is_left_out=True),
        ),
    )
    for flag in flags
)


def finish(reading: Reading) -> list[str]:
    """Say what follows from flags that are not there; raises NoCounterpart."""
    if reading.value(*_llama("model")) is None:
        raise NoCounterpart("it names no model with -m")
    if reading.value(*_llama("pooling_type")) and not reading.value(*_llama("embedding")):
        raise NoCounterpart("--pooling without --embedding")
    if reading.value(*_llama("n_ctx")) is None:
        remark = "as trained, llama-server's default; a number takes less memory"
        reading.set(Setting(_llama("n_ctx"), 0, remark))
    parallel = reading.value(*_llama("n_parallel"))
    if parallel is not None and parallel != PARALLEL:
        reading.set(Setting(("concurrencyLimit",), parallel, "as many as n_parallel"))
    return []
