"""swap.yaml → frozen typed values, or every mistake in it at once, each with its line."""

from proxy.config.document import Document, Problem
from proxy.config.load import ConfigError, load_config
from proxy.config.schema import Config, ModelConfig

__all__ = ["Config", "ConfigError", "Document", "ModelConfig", "Problem", "load_config"]
