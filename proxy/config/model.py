"""The keys of a model, and how it is spoken to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError
from yarl import URL

from proxy.config.capabilities import (
    Capabilities,
    Capability,
    Modalities,
    VisionFallback,
    words_of,
)
from proxy.config.command import splits
from proxy.config.command import words_of as split
from proxy.config.filters import Filters
from proxy.config.memory import Declaration, DeviceKind, Gpus
from proxy.config.safety import OwnSafety
from proxy.config.section import (
    Name,
    Priority,
    Seconds,
    Section,
    both,
    empty_is_unsaid,
    zero_is_unsaid,
)

Bundled = Literal["llama", "sd", "florence2", "echo"]
KINDS: tuple[str, ...] = (*get_args(Bundled), "cmd")
CONCURRENCY: Mapping[str, int] = {"llama": 4, "sd": 1, "florence2": 2, "echo": 10, "cmd": 10}
"""How many requests a worker gets at once unless the model says otherwise."""
NO_KIND = "it needs exactly one of llama, sd, florence2, echo or cmd"


def _env_entries(value: object) -> object:
    """Take a list of KEY=VALUE as a mapping."""
    if not isinstance(value, list):
        return value
    pairs = [str(entry).partition("=") for entry in value]
    if not all(name and sign for name, sign, _ in pairs):
        raise ValueError("each entry must read KEY=VALUE")
    return {name: text for name, _, text in pairs}


def _env_fits(env: dict[str, str]) -> dict[str, str]:
    """Refuse what no process can be given."""
    for name, text in env.items():
        if not name or "=" in name or "\0" in f"{name}{text}":
            raise ValueError("a name is empty or holds a =, or something holds a NUL")
    return env


def _listed(value: object) -> object:
    """Take one GPU as a list of it."""
    return [value] if isinstance(value, int | str) else value


def _ttl(value: object) -> object:
    """Take -1 as the file's own."""
    if not isinstance(value, int | float) or value >= 0:
        return value
    if value == -1:
        return None
    raise ValueError(f"invalid TTL value {value:g}; 0: never unloaded, -1: as globalTTL says")


def _patience(value: object) -> float | Literal["auto"] | None:
    if value is None:
        return None
    if value == "auto":
        return "auto"
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("must be seconds, 0 or more, or auto")


def _address(text: str) -> str:
    try:
        url = URL(text.replace("${PORT}", "1"))
        is_whole = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError("must be a URL such as http://127.0.0.1:${PORT}")
    return text


def _path(endpoint: str) -> str:
    is_path = endpoint.startswith("/") or endpoint == "none"
    return endpoint if is_path else f"/{endpoint}"


Command: TypeAlias = Annotated[
    Annotated[str, AfterValidator(splits)] | None, BeforeValidator(empty_is_unsaid)
]
Patience: TypeAlias = Annotated[float | Literal["auto"] | None, PlainValidator(_patience)]
Ttl: TypeAlias = Annotated[Seconds | None, BeforeValidator(_ttl)]
SomeSeconds: TypeAlias = Annotated[Seconds | None, BeforeValidator(zero_is_unsaid)]
Scalar: TypeAlias = str | int | float | bool


class Timeouts(Section):
    """The section `timeouts`: seconds, 0: no limit."""

    connect: Seconds = 30.0
    keepalive: Seconds = 30.0
    response_header: Seconds = 0.0
    tls_handshake: Seconds = 10.0
    expect_continue: Seconds = 1.0
    idle_conn: Seconds = 90.0


class Compat(Section):
    """The section `compat` of a model."""

    ignore_websockets: bool = False
    """Whether a websocket neither starts the model nor keeps it."""


class ModelConfig(Section):
    """An entry of `models`."""

    llama: dict[str, Any] | None = None
    sd: dict[str, Any] | None = None
    florence2: dict[str, Any] | None = None
    echo: dict[str, Any] | None = None
    cmd: Command = None
    cmd_stop: Command = None
    proxy: Annotated[str, AfterValidator(_address)] = "http://127.0.0.1:${PORT}"
    check_endpoint: Annotated[str, AfterValidator(_path)] = "/health"
    name: str = ""
    description: str = ""
    aliases: tuple[Name, ...] = ()
    capabilities: Capabilities | None = None
    safety: OwnSafety | None = None
    vision_fallback: VisionFallback = Field(default=None, validation_alias=both("vision_fallback"))
    env: Annotated[dict[str, str], BeforeValidator(_env_entries), AfterValidator(_env_fits)] = (
        Field(default_factory=dict)
    )
    unlisted: bool = False
    metadata: dict[str, Any] = Field(default_factory=dict)
    use_model_name: str = ""
    filters: Filters = Filters()
    timeouts: Timeouts = Timeouts()
    compat: Compat = Compat()
    macros: dict[str, Scalar] = Field(default_factory=dict)
    pin: bool = False
    device: DeviceKind | None = None
    gpu: Annotated[Gpus, BeforeValidator(_listed)] | None = None
    memory: Declaration | None = None
    priority: Priority = 0
    ttl: Ttl = None
    concurrency_limit: Annotated[PositiveInt | None, BeforeValidator(zero_is_unsaid)] = None
    queue_limit: PositiveInt = 1000
    patience: Patience = None
    send_loading_state: bool | None = None
    health_check_timeout: SomeSeconds = None
    unload_timeout: SomeSeconds = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if not kinds:
            raise PydanticCustomError("no_kind", "names nothing to run; {why}", {"why": NO_KIND})
        if len(kinds) > 1:
            raise ValueError(f"names {' and '.join(kinds)} to run; {NO_KIND}")
        return self

    @cached_property
    def kind(self) -> str:
        """Name the bundled worker, or say `cmd`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def options(self) -> Mapping[str, Any]:
        """What a bundled worker is told; nothing for a `cmd`."""
        return {} if self.kind == "cmd" else getattr(self, self.kind)

    @property
    def argv(self) -> tuple[str, ...]:
        """The words of `cmd`, ${PORT} still in them; none for a bundled worker."""
        return split(self.cmd or "")

    @property
    def stop_argv(self) -> tuple[str, ...]:
        """The words of `cmdStop`, ${PORT} and ${PID} still in them; none: a signal is sent."""
        return split(self.cmd_stop or "")

    @cached_property
    def words(self) -> tuple[Capability, ...] | None:
        """What the model can do; None: a `cmd` that does not say, so nothing is refused."""
        if isinstance(self.capabilities, tuple):
            return self.capabilities
        return words_of(self.kind, self.options)

    @property
    def sees(self) -> bool | None:
        """Tell whether a chat with it may hold pictures; None: nobody has said so."""
        if self.words is not None:
            return "vision" in self.words
        if self.modalities is not None and self.modalities.inputs:
            return "image" in self.modalities.inputs
        return None

    @property
    def modalities(self) -> Modalities | None:
        """What goes in and comes out, as told for listings; None: it is not told."""
        return self.capabilities if isinstance(self.capabilities, Modalities) else None

    @property
    def other_names(self) -> tuple[str, ...]:
        """Under what else it is found: its aliases, and each id that has parameters of its own."""
        return (*self.aliases, *self.filters.set_params_by_id)
