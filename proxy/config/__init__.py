"""swap.yaml → frozen typed values, or every mistake in it at once, each with its line."""

from proxy.config.capabilities import Capability, Modalities
from proxy.config.document import Document, Problem
from proxy.config.filters import Filters
from proxy.config.jobs import JobsConfig
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
from proxy.config.pictures import FetchImages, FilesConfig
from proxy.config.safety import PERSON, Check, OutputConfig, Rule, Terms, is_label, terms_for
from proxy.config.schema import Config
from proxy.config.server import ApiKey, Owner
from proxy.config.sources import Source
from proxy.config.told import absent_programs, understood
from proxy.config.virtual import Peer, PeerModel, Profile, Selector

__all__ = [
    "PERSON",
    "ApiKey",
    "Capability",
    "Check",
    "Compat",
    "Config",
    "ConfigError",
    "DeclaredMemory",
    "DeviceKind",
    "Document",
    "FetchImages",
    "FilesConfig",
    "Filters",
    "Gpu",
    "GpuConfig",
    "HostConfig",
    "JobsConfig",
    "Limit",
    "Loaded",
    "Modalities",
    "ModelConfig",
    "OutputConfig",
    "Owner",
    "Peer",
    "PeerModel",
    "Problem",
    "Profile",
    "Rule",
    "Selector",
    "Share",
    "Source",
    "Terms",
    "Timeouts",
    "absent_programs",
    "is_label",
    "load_config",
    "render",
    "terms_for",
    "understood",
]
