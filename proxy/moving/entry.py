"""One entry of `models`: which worker says the same as its `cmd`, and what becomes of its keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.macros import names_in
from proxy.moving import llama, sd
from proxy.moving.flags import NoCounterpart, Reading, Setting, Table, read
from proxy.moving.words import Word, expand, split
from proxy.moving.wrapped import why_kept

USELESS = {
    "proxy": "a bundled worker has no port",
    "checkEndpoint": "a bundled worker says itself when it is ready",
    "cmdStop": "a bundled worker stops on SIGTERM",
}
"""Keys that only a `cmd` needs, and why no longer."""
FIRST = ("model", "diffusion_model")
"""Options that stand at the top, whatever the order of the flags."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_HERE = re.compile(r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])(:[^/]*)?/?")
_GPUS = re.compile(r"(\d+|GPU-[0-9A-Za-z-]+)(,(\d+|GPU-[0-9A-Za-z-]+))*")


@dataclass(frozen=True, slots=True)
class Translated:
    """The model is a bundled worker's from now on."""

    kind: str
    settings: Sequence[Setting]
    left_out: Sequence[str]  # flags
    remarks: Sequence[str]
    env: frozenset[int] = field(default=frozenset())  # entries of it that a setting replaces


@dataclass(frozen=True, slots=True)
class Kept:
    """The model stays a `cmd`, though it plainly starts a server that we know."""

    why: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """A server, and the worker that takes its place."""

    name: str
    table: Table
    finish: Callable[[Reading], list[str]]
    variables: tuple[str, ...] = ()  # of its environment, that are flags too


_LLAMA = _Kind("llama", llama.FLAGS, llama.finish, llama.ENVIRONMENT)
_SD = _Kind("sd", sd.FLAGS, sd.finish)


def translate(entry: Mapping[str, object], macros: Mapping[str, str]) -> Translated | Kept | None:
    """Tell what becomes of an entry; None: its `cmd` starts no server that we know."""
    command = entry.get("cmd")
    if not isinstance(command, str):
        return None
    try:
        words = split(command, macros)
    except ValueError as error:
        return Kept(str(error))
    kind = _kind(words)
    if kind is None:
        why = why_kept(words)
        return None if why is None else Kept(why)
    try:
        _refuse(entry, kind, macros)
        reading = read(words[1:], kind.table)
        env = _gpus(entry, reading, macros)
        remarks = kind.finish(reading)
    except NoCounterpart as reason:
        return Kept(str(reason))
    settings = [one for one in reading.settings.values() if one.path[0] not in entry]
    settings.sort(key=lambda one: one.path[-1] not in FIRST)
    return Translated(kind.name, settings, reading.left_out, remarks, env)


def _kind(words: list[Word]) -> _Kind | None:
    if not words:
        return None
    program = words[0].program
    if program in llama.PROGRAMS:
        return _LLAMA
    if program in sd.PROGRAMS or (program == sd.EITHER and sd.is_server(words)):
        return _SD
    return None


def _refuse(entry: Mapping[str, object], kind: _Kind, macros: Mapping[str, str]) -> None:
    """Raise NoCounterpart where another key than `cmd` asks for the server itself."""
    address = expand(str(entry.get("proxy", "http://localhost")), macros)
    if not _HERE.fullmatch(address):
        raise NoCounterpart(f"proxy {address} is not just a port of this machine")
    for name, _ in _variables(entry, macros):
        if name.startswith(kind.variables or ("=",)):
            raise NoCounterpart(f"{name} in env is a flag too")
    for key, value in entry.items():
        is_bound = key not in ("cmd", "macros", *USELESS)
        if is_bound and "PORT" in names_in(expand(str(value), macros)):
            raise NoCounterpart(f"{key} tells its port, and a bundled worker has none")


def _variables(entry: Mapping[str, object], macros: Mapping[str, str]) -> list[tuple[str, str]]:
    env = entry.get("env")
    pairs = (
        [expand(str(item), macros).partition("=") for item in env] if isinstance(env, list) else []
    )
    return [(name, value) for name, _, value in pairs]


def _gpus(
    entry: Mapping[str, object], reading: Reading, macros: Mapping[str, str]
) -> frozenset[int]:
    """Say `gpu` for CUDA_VISIBLE_DEVICES; gives the entries of `env` that say it."""
    variables = _variables(entry, macros)
    found = [index for index, (name, _) in enumerate(variables) if name == VISIBLE]
    if not found:
        return frozenset()
    if reading.value("gpu") is not None:
        raise NoCounterpart(f"--device counts what {VISIBLE} lets it see")
    shown = variables[found[-1]][1].replace(" ", "")
    remark = f"was {VISIBLE}={shown}"
    if shown in ("", "-1"):
        reading.set(Setting(("device",), "cpu", remark))
    elif not _GPUS.fullmatch(shown):
        raise NoCounterpart(f"{VISIBLE}={shown} does not name GPUs plainly")
    elif reading.value("device") is None:
        gpus = [int(one) if one.isdecimal() else one for one in shown.split(",")]
        told = f"{remark}; counted as nvidia-smi does"
        reading.set(Setting(("gpu",), gpus[0] if len(gpus) == 1 else gpus, told))
    return frozenset(found)
