"""swap.yaml → frozen typed values, or every mistake in it at once, each with its line."""

from proxy.config.document import Document, Problem
from proxy.config.keys import ApiKey
from proxy.config.load import ConfigError, load_config
from proxy.config.memory import (
    DeclaredMemory,
    DeviceKind,
    Gpu,
    GpuConfig,
    HostConfig,
    Limit,
    Share,
)
from proxy.config.schema import Config, ModelConfig

__all__ = [
    "ApiKey",
    "Config",
    "ConfigError",
    "DeclaredMemory",
    "DeviceKind",
    "Document",
    "Gpu",
    "GpuConfig",
    "HostConfig",
    "Limit",
    "ModelConfig",
    "Problem",
    "Share",
    "load_config",
]
