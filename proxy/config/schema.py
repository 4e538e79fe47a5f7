"""The keys of swap.yaml above the models, their types and defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, PrivateAttr

from proxy.config.capabilities import VisionFallback
from proxy.config.company import (
    CompanyRead,
    GroupConfig,
    MatrixConfig,
    Routing,
    priorities,
    read_company,
)
from proxy.config.jobs import JobsConfig
from proxy.config.likeness import alike
from proxy.config.memory import DeclaredMemory, DeviceKind, Gpu, GpuConfig, HostConfig
from proxy.config.model import CONCURRENCY, ModelConfig, Patience, Scalar
from proxy.config.pictures import FetchingImages, FilesConfig
from proxy.config.safety import SafetyConfig, SafetyRead, read_safety
from proxy.config.section import Name, Seconds, Section, both
from proxy.config.server import (
    Footprints,
    Hooks,
    KeyEntry,
    LogOutput,
    LogTimeFormat,
    PathPrefix,
    Performance,
    Store,
    Ui,
    Upstream,
    caseless,
)
from proxy.config.virtual import Peer, PeerModel, Profiles, Selector, peer_models
from proxy.scheduler import Company

START_S, GRACE_S, METRICS_COUNT = 120.0, 10.0, 1000
COMFYUI, COMFYUI_CONCURRENCY = "comfyui_auto", 50
"""A model with this id serves a page that asks for many small files and keeps a socket open."""


def _some_rows(count: int) -> int:
    return count if count > 0 else METRICS_COUNT


def _with_comfyui(models: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
    if COMFYUI not in models:
        return models
    model = models[COMFYUI]
    limit = max(model.concurrency_limit or 0, COMFYUI_CONCURRENCY)
    compat = model.compat.model_copy(update={"ignore_websockets": True})
    adapted = model.model_copy(update={"concurrency_limit": limit, "compat": compat})
    return {**models, COMFYUI: adapted}


def _near(unknown: str, names: Iterable[str]) -> list[str]:
    return alike(unknown, dict.fromkeys(names), most=3, least=0.5)


class Config(Section):
    """A whole swap.yaml."""

    models: Annotated[dict[Name, ModelConfig], AfterValidator(_with_comfyui)] = Field(
        default_factory=dict
    )
    macros: dict[str, Scalar] = Field(default_factory=dict)
    api_keys: tuple[KeyEntry, ...] = ()
    # who may be seated with whom (company.py)
    groups: dict[str, GroupConfig] = Field(default_factory=dict)
    matrix: MatrixConfig | None = None
    routing: Routing = Routing()
    # other names, and other places (virtual.py)
    profiles: Profiles = Field(default_factory=dict)
    selectors: dict[str, Selector] = Field(default_factory=dict)
    peers: dict[str, Peer] = Field(default_factory=dict)
    # serving
    hooks: Hooks = Hooks()
    upstream: Upstream = Upstream()
    routes: tuple[PathPrefix, ...] = ()
    start_port: Annotated[int, Field(ge=1, lt=1 << 16)] | None = None
    include_aliases_in_list: bool = False
    metrics_max_in_memory: Annotated[int, AfterValidator(_some_rows)] = METRICS_COUNT
    ui: Ui = Ui()
    performance: Performance = Performance()
    # memory
    gpu: GpuConfig = GpuConfig()
    host: HostConfig = HostConfig()
    device: DeviceKind = "gpu"
    footprints: Footprints = None
    # what is kept
    jobs: JobsConfig = JobsConfig()
    files: FilesConfig = FilesConfig()
    # what is fetched
    fetch_images: FetchingImages = Field(default=None, validation_alias=both("fetch_images"))
    # what must not be
    safety: SafetyConfig | None = None
    # sight
    vision_fallback: VisionFallback = Field(default=None, validation_alias=both("vision_fallback"))
    # times
    health_check_timeout: Annotated[Seconds, AfterValidator(lambda s: s or START_S)] = START_S
    unload_timeout: Annotated[Seconds, AfterValidator(lambda s: s or GRACE_S)] = GRACE_S
    global_ttl: Annotated[Seconds, Field(alias="globalTTL")] = 0.0
    patience: Patience = None
    send_loading_state: bool = False
    waiting_notes: Seconds = 3.0
    shutdown_timeout: PositiveFloat = 10.0
    stall_timeout: PositiveFloat = 60.0
    max_body_bytes: PositiveInt = 256 << 20
    # logs
    log_level: Annotated[Literal["debug", "info", "warn", "error"], caseless] = "info"
    log_time_format: LogTimeFormat = ""
    log_to_stdout: LogOutput = "proxy"
    # accepted, and not needed
    log_requests: bool = False
    capture_buffer: NonNegativeInt = 0
    store: Store = Store()
    _folder: Path = PrivateAttr(Path())
    _created: int = PrivateAttr(0)
    _left_out: frozenset[str] = PrivateAttr(frozenset())

    def placed(self, folder: Path, files: Iterable[Path], left_out: Iterable[str] = ()) -> Self:
        """Note where this was read from, and which names went with models that were left out."""
        self._folder = folder.resolve()
        self._left_out = frozenset(left_out)
        self._created = int(max(file.stat().st_mtime for file in files))
        return self

    @property
    def folder(self) -> Path:
        """Where the config lies: workers run there, so that paths in it are relative to it."""
        return self._folder

    @property
    def created(self) -> int:
        """When the config was written, Unix seconds: what every model is said to be created at."""
        return self._created

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Every name that a model has, with the model's id."""
        names = {name: model_id for model_id, m in self.models.items() for name in m.other_names}
        return {**names, **{model_id: model_id for model_id in self.models}}

    def resolve(self, name: str) -> str | None:
        """Find the id of the model with this id or alias, or with parameters for this id."""
        return self.names.get(name)

    def near(self, unknown: str) -> list[str]:
        """Name ids, aliases, selectors and peers' models that look like it."""
        return _near(unknown, [*self.names, *self.selectors, *self.peer_models])

    def absent(self, name: str, among: Iterable[str]) -> str:
        """Say that nobody has the name, and who of those that fit there may be meant."""
        if name in self._left_out:
            return f"{name!r} is no model any more: its entry was left out"
        near = " or ".join(_near(name, among))
        return f"{name!r} is no model{f'; did you mean {near}?' if near else ''}"

    @cached_property
    def peer_models(self) -> Mapping[str, PeerModel]:
        """Every name of a peer's model; one of a model here comes before it."""
        return peer_models(self.peers)

    @cached_property
    def company_read(self) -> CompanyRead:
        """Who may be seated beside whom, and what is wrong with what is said of it."""
        return read_company(self)

    @property
    def company(self) -> Company:
        """Who may be seated beside whom."""
        return self.company_read.company

    @cached_property
    def safety_read(self) -> SafetyRead:
        """What must not be asked for, as it was when the config was read."""
        return read_safety(self)

    @property
    def is_one_seat(self) -> bool:
        """Tell whether one model at a time is seated, as nothing says who else may be."""
        return self.gpu.memory is None and not self.company.beside

    @cached_property
    def priorities(self) -> Mapping[str, int]:
        """Each model's priority, unless its requests or their keys have their own."""
        return priorities(self)

    def priority_of(self, model_id: str) -> int:
        return self.priorities[model_id]

    @property
    def preload(self) -> tuple[str, ...]:
        """Name the models, by id, that are loaded at the start, in this order."""
        ids = (self.resolve(name) for name in self.hooks.on_startup.preload)
        return tuple(dict.fromkeys(model_id for model_id in ids if model_id is not None))

    def ignored_at_upstream(self, path: str) -> bool:
        """Tell whether a request for this path of a model's is no reason to load it."""
        return any(pattern.search(path) for pattern in self.upstream.ignore_paths)

    def ttl_s(self, model: ModelConfig) -> float:
        return self.global_ttl if model.ttl is None else model.ttl

    def patience_s(self, model: ModelConfig) -> float | None:
        """Give the seconds, or None: they follow from the time that the model takes to load."""
        patience = self.patience if model.patience is None else model.patience
        return None if patience == "auto" else patience

    def sends_loading_state(self, model: ModelConfig) -> bool:
        told = model.send_loading_state
        return self.send_loading_state if told is None else told

    def eyes_of(self, model: ModelConfig) -> str | None:
        """Name the model that puts pictures into words for this one.

        None: it sees by itself, it does not chat, nobody does it, or nobody knows whether it sees,
        and its own key does not say that it needs words.
        """
        own = model.vision_fallback
        if model.words is not None and "chat" not in model.words:
            return None
        told = self.vision_fallback if own is None else own
        needs_words = model.sees is False or (model.sees is None and own is not None)
        return self.resolve(told) if told and needs_words else None

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

    def files_path(self, standard: Path) -> Path:
        """Tell where the pictures of /v1/files are kept."""
        return standard if self.files.dir is None else self.folder / self.files.dir

    def start_timeout_s(self, model: ModelConfig) -> float:
        return model.health_check_timeout or self.health_check_timeout

    def grace_s(self, model: ModelConfig) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        return model.unload_timeout or self.unload_timeout

    def concurrency(self, model: ModelConfig) -> int:
        return model.concurrency_limit or CONCURRENCY[model.kind]
