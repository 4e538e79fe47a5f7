"""sd-server's flags, and the options of an `sd:` entry that say the same."""

from __future__ import annotations

from proxy.moving.flags import (
    Flag,
    NoCounterpart,
    Reading,
    Setting,
    Table,
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

PROGRAMS = frozenset(("sd-server",))
EITHER = "sd"  # a server if it is told where to listen, else it paints one picture and ends
LISTENS = frozenset(("--listen-port", "--listen-ip"))
TYPES = (
    *("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"),
    *("q2_k", "q3_k", "q4_k", "q5_k", "q6_k"),
)
OWN_DEFAULTS = {"width": "512", "height": "512", "steps": "20", "cfg_scale": "7.0"}
"""What sd-server paints with unless told; the bundled worker goes by the model's family."""


def _sd(name: str) -> tuple[str, ...]:
    return ("sd", name)


def _default(name: str) -> tuple[str, ...]:
    return ("sd", "defaults", name)


def _on(name: str) -> Flag:
    return switch(Setting(_sd(name), value=True))


def _random(word: Word) -> tuple[Setting, ...]:
    if not word.value.startswith("-"):
        raise ValueError("a fixed seed can only be asked for in a request")
    return ()


FLAGS: Table = dict(
    flag
    for flags in (
        # files
        named("-m", "--model", flag=option(_sd("model"), text)),
        named("--diffusion-model", flag=option(_sd("diffusion_model"), text)),
        named("--vae", flag=option(_sd("vae"), text)),
        named("--taesd", "--tae", flag=option(_sd("taesd"), text)),
        named("--clip_l", flag=option(_sd("clip_l"), text)),
        named("--clip_g", flag=option(_sd("clip_g"), text)),
        named("--t5xxl", flag=option(_sd("t5xxl"), text)),
        named("--llm", "--qwen2vl", flag=option(_sd("llm"), text)),
        named("--llm_vision", "--qwen2vl_vision", flag=option(_sd("llm_vision"), text)),
        named("--lora-model-dir", flag=option(_sd("lora_dir"), text)),
        # memory and speed
        named("-t", "--threads", flag=option(_sd("n_threads"), whole(1, 512, unset=("-1", "0")))),
        named("--type", flag=option(_sd("type"), one_of(*TYPES, unset=("default",)))),
        named("--mmap", flag=_on("enable_mmap")),
        named("--offload-to-cpu", flag=_on("offload_params_to_cpu")),
        named("--max-vram", flag=option(_sd("max_vram"), number(0))),
        named("--clip-on-cpu", flag=_on("keep_clip_on_cpu")),
        named("--vae-on-cpu", flag=_on("keep_vae_on_cpu")),
        named("--diffusion-fa", flag=_on("diffusion_flash_attn")),
        named("--diffusion-conv-direct", flag=_on("diffusion_conv_direct")),
        named("--vae-conv-direct", flag=_on("vae_conv_direct")),
        named("--vae-tiling", flag=_on("vae_tiling")),
        # what a request gets that does not say otherwise
        named("-W", "--width", flag=option(_default("width"), whole(16, 1 << 14))),
        named("-H", "--height", flag=option(_default("height"), whole(16, 1 << 14))),
        named("--steps", flag=option(_default("steps"), whole(1, 1000))),
        named("--cfg-scale", flag=option(_default("cfg_scale"), number(0, 100))),
        named("--guidance", flag=option(_default("guidance_scale"), number(0, 100))),
        named("--strength", flag=option(_default("strength"), number(0, 1))),
        named("--sampling-method", flag=option(_default("sample_method"), text)),
        named("--scheduler", flag=option(_default("scheduler"), text)),
        named("-n", "--negative-prompt", flag=option(_default("negative_prompt"), text)),
        named("--clip-skip", flag=option(_default("clip_skip"), whole(1, 12, unset=("-1", "0")))),
        named("--flow-shift", flag=option(_default("flow_shift"), number(0, 100))),
        # so it is with the bundled worker
        named("--listen-port", flag=granted(1)),
        named("-l", "--listen-ip", flag=left_out(1)),
        named("-s", "--seed", flag=Flag(1, _random)),
        named("--rng", flag=only("cuda")),
        named("--lora-apply-mode", flag=only("auto", "at_runtime")),
        # no picture is another one without it
        named("-v", "--verbose", "--color", flag=left_out()),
    )
    for flag in flags
)


def is_server(words: list[Word]) -> bool:
    """Tell whether the program `sd` is asked to serve."""
    return any(word.value in LISTENS for word in words)


def finish(reading: Reading) -> list[str]:
    """Give what is different though no flag says so; raises NoCounterpart."""
    if not any(reading.value(*_sd(name)) for name in ("model", "diffusion_model")):
        raise NoCounterpart("it names neither --model nor --diffusion-model")
    unsaid = [
        f"{name} {value}"
        for name, value in OWN_DEFAULTS.items()
        if reading.value(*_default(name)) is None
    ]
    told = f"not said, so as suits the family (sd-server: {', '.join(unsaid)})"
    return [told] if unsaid else []
