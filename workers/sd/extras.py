"""PURE: `<sd_cpp_extra_args>{…}</sd_cpp_extra_args>` in a prompt: what sd-server takes."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import from_json

BEGIN, END = "<sd_cpp_extra_args>", "</sd_cpp_extra_args>"
NAMES: Mapping[str, str] = {  # by their path in the block
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "strength": "strength",
    "clip_skip": "clip_skip",
    "batch_count": "n",
    "output_format": "output_format",
    "output_compression": "output_compression",
    "lora": "loras",
    "init_image": "image",
    "ref_images": "image",
    "mask_image": "mask",
    "vae_tiling_params.enabled": "vae_tiling",
    "sample_params.sample_steps": "steps",
    "sample_params.sample_method": "sample_method",
    "sample_params.scheduler": "scheduler",
    "sample_params.flow_shift": "flow_shift",
    "sample_params.guidance.txt_cfg": "cfg_scale",
    "sample_params.guidance.distilled_guidance": "guidance_scale",
}


def take(prompt: str) -> tuple[str, dict[str, object]]:
    """Take the first block out of a prompt; gives its fields by our names. Raises ValueError."""
    before, begin, rest = prompt.partition(BEGIN)
    text, end, after = rest.partition(END)
    if not (begin and end):
        return prompt, {}
    try:
        block = from_json(text)
    except ValueError as error:
        raise ValueError(f"sd_cpp_extra_args is not valid JSON: {error}") from None
    if not isinstance(block, dict):
        raise ValueError("sd_cpp_extra_args is not a JSON object")  # noqa: TRY004  # as pydantic wants it
    told = {ours: value for path, ours in NAMES.items() if (value := _at(block, path)) is not None}
    # what else is there goes by its own name, so that our names work in the block as well
    plain = {k: v for k, v in block.items() if k not in NAMES and not isinstance(v, dict)}
    return f"{before}{after}".strip(), {**plain, **told}


def _at(block: object, path: str) -> object:
    for key in path.split("."):
        block = block.get(key) if isinstance(block, dict) else None
    return block
