"""LoRA files: found by name inside `lora_dir` only, and held against the model before use.

The engine aborts on a LoRA of another model, so its header has to fit: modules that the model
knows by name must have its shape, others at least its widths. What passes nevertheless, for the
engine knows more names than this, ends in an error where its assertions do not end the process
(`stop.cpp`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from workers import files, wire
from workers.files import Header, Shape
from workers.sd.job import Lora

SUFFIXES = (".safetensors", ".gguf")
NAMED_AT_MOST = 20  # in an error message
NEAR = 3  # of them first
TAG = re.compile(r"<lora:([^<>:]{1,300})(?::(-?\d{0,4}(?:\.\d{0,6})?))?>")

_PREFIX = re.compile(
    r"^(?:base_model\.model\.)?(?:model\.diffusion_model\.|diffusion_model\.|transformer\.|unet\."
    r"|lora_unet_|lora_transformer_)"
)
_HALF = re.compile(r"(?:\.lora_(down|up|A|B)(?:\.default)?|[._]lora\.(down|up))\.weight$")
_DOWN = ("down", "A")
_WHOLE = ("I64", "I32", "I16", "I8", "U8", "BOOL")  # numbers that the engine does not convert


class Unfit(Exception):
    """The LoRA was made for another model."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a LoRA is held against."""

    modules: Mapping[str, Shape]  # of the diffusion model, by `_plain` name
    widths: frozenset[int]  # of all layers of all parts


def weights_of(main: Header, parts: Iterable[Header]) -> Weights:
    """Gather the shapes of a model: `main` has the diffusion model, `parts` the encoders."""
    modules = {
        _plain(name.removesuffix(".weight")): shape
        for name, shape in main.shapes.items()
        if name.endswith(".weight") and len(shape) > 1
    }
    widths = {
        width for part in (main, *parts) for shape in part.shapes.values() for width in shape[:2]
    }
    return Weights(modules, frozenset(widths))


def names(folder: Path | None) -> dict[str, Path]:
    """List the LoRAs in `folder` and below: relative path without suffix → file."""
    if folder is None:
        return {}
    found = (file for file in sorted(folder.rglob("*")) if file.suffix in SUFFIXES)
    return {str(file.relative_to(folder).with_suffix("")): file for file in found}


def take_tags(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """Take `<lora:name:weight>` out of a prompt. Raises ApiError 400."""
    found = []
    for name, weight in TAG.findall(prompt):
        try:
            found.append((name, float(weight or 1)))
        except ValueError:
            raise wire.bad_request(
                f"<lora:{name}:{weight}>: the weight is no number", param="prompt"
            ) from None
    return " ".join(TAG.sub(" ", prompt).split()) if found else prompt, found


def find(folder: Path | None, name: str, weight: float, model: Weights) -> Lora:
    """Find a LoRA by its name, with or without folder and suffix. Raises ApiError 400, 404."""
    if folder is None:
        raise wire.bad_request(
            "this model has no LoRAs: it needs a `lora_dir` in swap.yaml", param="loras"
        )
    known = names(folder)
    wanted = name
    for suffix in SUFFIXES:
        wanted = wanted.removesuffix(suffix)
    # only names that the listing has are ever opened, so no name leads out of the folder
    file = known.get(wanted) or {Path(n).name: f for n, f in known.items()}.get(wanted)
    if file is None:
        raise _not_found(wanted[:80], list(known))
    _hold_against(file, model)
    return Lora(wanted, str(file), weight)


def _not_found(name: str, known: list[str]) -> wire.ApiError:
    """Make the error that names the nearest first: there may be hundreds."""
    near = difflib.get_close_matches(name, known, n=NEAR)
    listed = list(dict.fromkeys([*near, *known]))[:NAMED_AT_MOST]
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    told = f"there is no LoRA {name!r}{meant}; this model has: {', '.join(listed) or 'none'}"
    return wire.ApiError(404, told, code="lora_not_found", param="loras")


def listing(folder: Path | None, model: Weights) -> list[dict[str, object]]:
    """List all LoRAs of a folder as it is now, and whether each fits the model; reads heads."""
    return [_listed(name, file, folder, model) for name, file in names(folder).items() if folder]


def _listed(name: str, file: Path, folder: Path, model: Weights) -> dict[str, object]:
    reason = _unfitness(file, model)
    return {
        "name": name,
        "path": str(file.relative_to(folder)),
        "fits": reason is None,
        "reason": reason,
    }


def _hold_against(file: Path, model: Weights) -> None:
    """Raise ApiError 400 for a LoRA that the engine would abort on, or silently leave out."""
    reason = _unfitness(file, model)
    if reason is not None:
        raise _unusable(f"the LoRA {file.stem!r}", reason)


def refused(used: Iterable[Lora], told: str) -> wire.ApiError:
    """Make the error for LoRAs whose heads fit, but which the engine can make nothing of."""
    names = " or ".join(repr(lora.name) for lora in used)
    return _unusable(f"the LoRA {names}", f"the engine says {told}")


def _unusable(what: str, reason: str) -> wire.ApiError:
    told = f"{what} cannot be used with this model: {reason}; choose one that was made for it"
    return wire.bad_request(told, param="loras", code="lora_mismatch")


def _unfitness(file: Path, model: Weights) -> str | None:
    """Tell why a file cannot be used with the model; None: it can."""
    try:
        for module, (down, up) in _pairs(files.read(file)).items():
            _hold_pair(module, down, up, model)
    except files.BadFile as error:
        return f"it {error}"
    except Unfit as error:
        return str(error)
    return None


def _pairs(header: Header) -> dict[str, tuple[Shape, Shape]]:
    """Match the two halves of each module. Raises Unfit."""
    downs: dict[str, Shape] = {}
    ups: dict[str, Shape] = {}
    for name, shape in header.shapes.items():
        if header.types[name] in _WHOLE and files.count(shape) > 1:  # a scale is but one
            raise Unfit(f"{name} holds whole numbers")
        half = _HALF.search(name)
        if half:
            (downs if half[half.lastindex or 1] in _DOWN else ups)[name[: half.start()]] = shape
    if not downs:
        raise Unfit("it has no lora_down/lora_up or lora_A/lora_B pairs")
    lonely = downs.keys() ^ ups.keys()
    if lonely:
        raise Unfit(f"{min(lonely)} has only one half of its pair")
    return {module: (down, ups[module]) for module, down in downs.items()}


def _hold_pair(module: str, down: Shape, up: Shape, model: Weights) -> None:
    # (rank, in), (out, rank)
    if len(down) < 2 or len(up) < 2 or down[0] != up[1] or 0 in (*down, *up):  # noqa: PLR2004
        raise Unfit(f"the halves of {module} do not fit each other")
    outputs, inputs = up[0], down[1]
    shape = model.modules.get(_plain(module))
    if shape is not None and (outputs, inputs) != shape[:2]:
        raise Unfit(f"{module} is ({outputs}, {inputs}), but the model's is {tuple(shape[:2])}")
    if not {outputs, inputs} <= model.widths:
        raise Unfit(f"{module} is ({outputs}, {inputs}), and the model has no such layer")


def _plain(module: str) -> str:
    return _PREFIX.sub("", module).replace(".", "_")
