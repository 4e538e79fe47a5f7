"""PURE: sample methods and schedulers, by the engine's names and by what others call them."""

from __future__ import annotations

SAMPLE_METHODS = (
    *("euler", "euler_a", "heun", "dpm2", "dpm++2s_a", "dpm++2m", "dpm++2mv2", "ipndm", "ipndm_v"),
    *("lcm", "ddim_trailing", "tcd", "res_multistep", "res_2s", "er_sde"),
)
SCHEDULERS = (
    *("discrete", "karras", "exponential", "ays", "gits", "sgm_uniform", "simple", "smoothstep"),
    *("kl_optimal", "lcm", "bong_tangent"),
)
_OTHER_NAMES = {"ddim": "ddim_trailing", "dpm++2sa": "dpm++2s_a", "uniform": "discrete"}
_ENGINES_CHOICE = ("", "default", "auto", "automatic")


class Unknown(ValueError):
    """No such name; the message lists the known ones."""


def sample_method(name: str | None) -> str | None:
    """Give the engine's name for `Euler a`, `k_euler_a`…; None: let the engine choose."""
    return _find(name, SAMPLE_METHODS, "sample method")


def scheduler(name: str | None) -> str | None:
    """Give the engine's name for `SGM Uniform`…; None: let the engine choose."""
    return _find(name, SCHEDULERS, "scheduler")


def split(name: str | None) -> tuple[str | None, str | None]:
    """Take `DPM++ 2M Karras`, as older programs say it, apart into both of its names."""
    method, _, last = (name or "").strip().rpartition(" ")
    is_both = method and _plain(last) in {_plain(known) for known in SCHEDULERS}
    return (method, last) if is_both else (name, None)


def _find(name: str | None, known: tuple[str, ...], what: str) -> str | None:
    if name is None or name.strip().lower() in _ENGINES_CHOICE:
        return None
    plain = _plain(name)
    found = {_plain(k): k for k in known}.get(plain) or _OTHER_NAMES.get(plain)
    if found not in known:
        raise Unknown(f"unknown {what} {name[:40]!r}; known are {', '.join(known)}")
    return found


def _plain(name: str) -> str:
    return name.lower().removeprefix("k_").replace(" ", "").replace("_", "")
