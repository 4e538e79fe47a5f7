"""What is known of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, NewType

from proxy.scheduler.types import Demand, ModelName

Digest = NewType("Digest", str)


class Key(NamedTuple):
    """Whose peak it is."""

    model: ModelName
    digest: Digest
    request_class: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """The most that was seen of each device."""

    peak: Demand = field(default_factory=dict)
    told: Demand = field(default_factory=dict)  # the peak when it last was news
    runs: int = 0
    used_at: float = 0.0
    feared: Demand = field(default_factory=dict)  # what it may need, as less was not enough
    calm_runs: int = 0  # that went well since


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take, the newest weighing most."""

    load_s: float | None = None
    service_s: float | None = None
    used_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """All of it."""

    peaks: Mapping[Key, Footprint] = field(default_factory=dict)
    times: Mapping[tuple[ModelName, Digest], Times] = field(default_factory=dict)


def most(one: Demand, other: Demand) -> Demand:
    """Take the more of the two for each device."""
    devices = sorted({*one, *other})
    return MappingProxyType({on: max(one.get(on, 0), other.get(on, 0)) for on in devices})


def options_digest(
    kind: str, options: Mapping[str, object], env: Mapping[str, str], cmd: str | None
) -> Digest:
    """Tell apart what a model is started with; the order of keys does not matter."""
    told = {"kind": kind, "options": options, "env": env, "cmd": cmd}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), default=str)
    return Digest(hashlib.sha256(text.encode()).hexdigest()[:16])
