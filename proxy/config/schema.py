"""The keys of swap.yaml, their types and defaults: the one place where both are said."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    model_validator,
)

from proxy.config.keys import KeyEntry
from proxy.config.memory import (
    Declaration,
    DeclaredMemory,
    DeviceKind,
    Gpu,
    GpuConfig,
    Gpus,
    HostConfig,
)
from proxy.config.section import Priority, Section

Bundled = Literal["llama", "sd", "florence2", "echo"]
Capability = Literal[
    "chat",
    "vision",
    "completions",
    "embeddings",
    "rerank",
    "describe",
    "image_generation",
    "text_to_image",
    "image_edit",
    "image_to_image",
]
IMAGE_WORDS: tuple[Capability, ...] = (
    "image_generation",
    "text_to_image",
    "image_edit",
    "image_to_image",
)
CONCURRENCY: Mapping[str, int] = {"llama": 4, "sd": 1, "florence2": 2, "echo": 10, "cmd": 10}
"""How many requests a worker gets at once unless the model says otherwise."""


def _env_entries(value: object) -> object:
    """Take llama-swap's list of KEY=VALUE as a mapping."""
    if not isinstance(value, list):
        return value
    pairs = [str(entry).partition("=") for entry in value]
    if not all(name and sign for name, sign, _ in pairs):
        raise ValueError("each entry must read KEY=VALUE")
    return {name: text for name, _, text in pairs}


def _splits(command: str) -> str:
    if not shlex.split(command, comments=True):
        raise ValueError("the command is empty")
    return command


def _listed(value: object) -> object:
    """Take one GPU as a list of it."""
    return [value] if isinstance(value, int | str) else value


def _patience(value: object) -> float | Literal["auto"] | None:
    if value is None:
        return None
    if value == "auto":
        return "auto"
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("must be seconds, 0 or more, or auto")


def _footprints(value: object) -> Path | Literal[False] | None:
    if value is None or value is False:
        return value
    if isinstance(value, str) and value:
        return Path(value)
    raise ValueError("must be a path, or false")


Patience: TypeAlias = Annotated[float | Literal["auto"] | None, PlainValidator(_patience)]
Footprints: TypeAlias = Annotated[Path | Literal[False] | None, PlainValidator(_footprints)]


class ModelConfig(Section):
    """An entry of `models`."""

    llama: dict[str, Any] | None = None
    sd: dict[str, Any] | None = None
    florence2: dict[str, Any] | None = None
    echo: dict[str, Any] | None = None
    cmd: Annotated[str, AfterValidator(_splits)] | None = None
    proxy: str = "http://127.0.0.1:${PORT}"
    check_endpoint: str = "/health"
    name: str = ""
    description: str = ""
    aliases: tuple[str, ...] = ()
    capabilities: tuple[Capability, ...] | None = None
    env: Annotated[dict[str, str], BeforeValidator(_env_entries)] = Field(default_factory=dict)
    unlisted: bool = False
    pin: bool = False
    device: DeviceKind | None = None
    gpu: Annotated[Gpus, BeforeValidator(_listed)] | None = None
    memory: Declaration | None = None
    priority: Priority = 0
    ttl: NonNegativeFloat | None = None
    concurrency_limit: PositiveInt | None = None
    queue_limit: PositiveInt = 1000
    patience: Patience = None
    send_loading_state: bool | None = None
    health_check_timeout: PositiveFloat | None = None
    unload_timeout: PositiveFloat | None = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        kinds = [kind for kind in (*get_args(Bundled), "cmd") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            told = " and ".join(kinds) or "nothing"
            raise ValueError(
                f"names {told} to run; it needs exactly one of llama, sd, florence2, echo or cmd"
            )
        return self

    @property
    def kind(self) -> str:
        """Name the bundled worker, or say `cmd`."""
        kinds: tuple[str, ...] = (*get_args(Bundled), "cmd")
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @property
    def options(self) -> Mapping[str, Any]:
        """What a bundled worker is told; nothing for a `cmd`."""
        return {} if self.kind == "cmd" else getattr(self, self.kind)

    @property
    def words(self) -> tuple[Capability, ...] | None:
        """What the model can do; None: a `cmd` that does not say, so nothing is refused."""
        if self.capabilities is not None:
            return self.capabilities
        match self.kind:
            case "llama":
                return _llama_words(self.options)
            case "sd":
                return IMAGE_WORDS
            case "florence2":
                return ("chat", "vision", "describe")
            case "echo":
                return ("chat", "vision", "completions", "embeddings", *IMAGE_WORDS)
            case _:
                return None


def _llama_words(options: Mapping[str, Any]) -> tuple[Capability, ...]:
    if options.get("pooling_type") == "rank":
        return ("rerank",)
    if options.get("embedding"):
        return ("embeddings",)
    return ("chat", "vision", "completions") if options.get("mmproj") else ("chat", "completions")


class Config(Section):
    """A whole swap.yaml."""

    models: dict[str, ModelConfig]
    macros: dict[str, str | int | float | bool] = Field(default_factory=dict)
    api_keys: tuple[KeyEntry, ...] = ()
    gpu: GpuConfig = GpuConfig()
    host: HostConfig = HostConfig()
    device: DeviceKind = "gpu"
    footprints: Footprints = None
    health_check_timeout: PositiveFloat = 120.0
    unload_timeout: PositiveFloat = 10.0
    global_ttl: Annotated[NonNegativeFloat, Field(alias="globalTTL")] = 0.0
    patience: Patience = None
    send_loading_state: bool = False
    waiting_notes: NonNegativeFloat = 3.0
    shutdown_timeout: PositiveFloat = 10.0
    stall_timeout: PositiveFloat = 60.0
    max_body_bytes: PositiveInt = 256 << 20
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    _folder: Path = PrivateAttr(Path())
    _created: int = PrivateAttr(0)

    def placed(self, path: Path) -> Self:
        """Note which file this was read from."""
        self._folder = path.resolve().parent
        self._created = int(path.stat().st_mtime)
        return self

    @property
    def folder(self) -> Path:
        """Where the file lies: workers run there, so that paths in it are relative to it."""
        return self._folder

    @property
    def created(self) -> int:
        """When the file was written, Unix seconds: what every model is said to be created at."""
        return self._created

    def resolve(self, model_or_alias: str) -> str | None:
        """Find the model's id."""
        if model_or_alias in self.models:
            return model_or_alias
        for model_id, model in self.models.items():
            if model_or_alias in model.aliases:
                return model_id
        return None

    def near(self, unknown: str) -> list[str]:
        """Name ids and aliases that look like it."""
        names = [*self.models, *(a for m in self.models.values() for a in m.aliases)]
        return get_close_matches(unknown, names, n=3, cutoff=0.5)

    def ttl_s(self, model: ModelConfig) -> float:
        return self.global_ttl if model.ttl is None else model.ttl

    def patience_s(self, model: ModelConfig) -> float | None:
        """Give the seconds, or None: they follow from the time that the model takes to load."""
        patience = self.patience if model.patience is None else model.patience
        return None if patience == "auto" else patience

    def sends_loading_state(self, model: ModelConfig) -> bool:
        told = model.send_loading_state
        return self.send_loading_state if told is None else told

    def device_of(self, model: ModelConfig) -> DeviceKind:
        return model.device or self.device

    def gpus_of(self, model: ModelConfig) -> tuple[Gpu, ...]:
        """Name the GPUs that the model may use, none for one that lives in host memory."""
        if self.device_of(model) == "cpu":
            return ()
        return model.gpu or (self.gpu.devices or (0,))[:1]

    def declared(self, model: ModelConfig) -> DeclaredMemory | None:
        """Tell what the model says that it needs; a bare size is on its own device."""
        if not isinstance(model.memory, int):
            return model.memory
        if self.device_of(model) == "cpu":
            return DeclaredMemory(host=model.memory)
        return DeclaredMemory(gpu=model.memory)

    def footprints_path(self, standard: Path | None) -> Path | None:
        """Tell where learned footprints are kept; None: nowhere."""
        if self.footprints is False:
            return None
        return standard if self.footprints is None else self.folder / self.footprints

    def start_timeout_s(self, model: ModelConfig) -> float:
        return model.health_check_timeout or self.health_check_timeout

    def grace_s(self, model: ModelConfig) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        return model.unload_timeout or self.unload_timeout

    def concurrency(self, model: ModelConfig) -> int:
        return model.concurrency_limit or CONCURRENCY[model.kind]
