"""The models of the traces: echoes that take their time as real engines do, and their configs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import yaml

Kind: TypeAlias = Literal["chat", "embeddings", "picture"]

PATIENCE_S = 5.0
IMPORT_S = 1.0
STOP_S = 0.3
MIB = 1 << 20
INTERPRETER_BYTES = 48 * MIB  # of an echo without ballast
CAPABILITIES: Mapping[Kind, str] = {
    "chat": "chat",
    "embeddings": "embeddings",
    "picture": "image_generation",
}


@dataclass(frozen=True, slots=True)
class Model:
    """An engine as a scheduler sees it; seconds are those of the real one."""

    name: str
    load_s: float
    at_once: int = 4  # requests that it serves together
    kind: Kind = "chat"
    host_bytes: int | None = None  # runs on the CPU, and really holds as much

    def options(self, speed: float) -> dict[str, object]:
        """Tell the switches of `workers.echo`, everything `speed` times as fast."""
        ballast_bytes = max((self.host_bytes or 0) - INTERPRETER_BYTES, 0)
        return {
            "reply": "x",
            "at_once": self.at_once,
            "import_s": round(IMPORT_S / speed, 4),
            "load_s": round(self.load_s / speed, 4),
            "stop_s": round(STOP_S / speed, 4),
            **({"ballast_bytes": ballast_bytes} if ballast_bytes else {}),
        }


def hotseat(
    models: Iterable[Model], speed: float, settings: Mapping[str, object]
) -> dict[str, object]:
    """Make a swap.yaml in which every model is a bundled echo."""
    return {
        "patience": PATIENCE_S / speed,
        "logLevel": "warn",
        **settings,
        "models": {model.name: _hotseat_entry(model, speed) for model in models},
    }


def _hotseat_entry(model: Model, speed: float) -> dict[str, object]:
    entry: dict[str, object] = {
        "echo": model.options(speed),
        "concurrencyLimit": model.at_once,
        "capabilities": [CAPABILITIES[model.kind]],
    }
    if model.host_bytes is not None:
        entry |= {"device": "cpu", "memory": f"{model.host_bytes // MIB}MiB"}
    return entry


def llama_swap(models: Iterable[Model], speed: float) -> dict[str, object]:
    """Make a config.yaml in which every model is an echo at a port.

    Its concurrencyLimit refuses what is above it, so it is set above all that is asked.
    """
    return {
        "healthCheckTimeout": 120,
        "models": {
            model.name: {"cmd": _command(model, speed), "concurrencyLimit": 5000}
            for model in models
        },
    }


def _command(model: Model, speed: float) -> str:
    options = json.dumps(model.options(speed))
    python = shlex.join([sys.executable, "-P", "-m", "workers.echo"])
    return f"{python} --port ${{PORT}} --options {shlex.quote(options)}"


def as_yaml(config: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, width=1000)
