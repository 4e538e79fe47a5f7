"""The HTTP surface: what each path is, and nothing of how it is done."""

from proxy.routes.keys import CONFIG, HUB, POOL
from proxy.routes.table import application

__all__ = ["CONFIG", "HUB", "POOL", "application"]
