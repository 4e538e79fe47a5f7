"""swap.yaml → frozen typed values, or every mistake in it at once, each with its line."""

from proxy.config.capabilities import Capability, Modalities
from proxy.config.document import Document, Problem
from proxy.config.filters import Filters
from proxy.config.load import ConfigError, Loaded, load_config, render
from proxy.config.memory import (
    DeclaredMemory,
    DeviceKind,
    Gpu,
    GpuConfig,
    HostConfig,
    Limit,
    Share,
)
from proxy.config.model import Compat, ModelConfig, Timeouts
from proxy.config.schema import Config
from proxy.config.server import ApiKey
from proxy.config.sources import Source
from proxy.config.told import absent_programs, understood
from proxy.config.virtual import Peer, PeerModel, Profile, Selector

__all__ = [
    "ApiKey",
    "Capability",
    "Compat",
    "Config",
    "ConfigError",
    "DeclaredMemory",
    "DeviceKind",
    "Document",
    "Filters",
    "Gpu",
    "GpuConfig",
    "HostConfig",
    "Limit",
    "Loaded",
    "Modalities",
    "ModelConfig",
    "Peer",
    "PeerModel",
    "Problem",
    "Profile",
    "Selector",
    "Share",
    "Source",
    "Timeouts",
    "absent_programs",
    "load_config",
    "render",
    "understood",
]
