"""What handlers find in the application."""

from collections.abc import Callable

from aiohttp import web

from proxy.config import Config
from proxy.logs import LogHub
from proxy.metrics import Metrics
from proxy.pool import Pool
from proxy.swaps import SwapLog

CONFIG: web.AppKey[Callable[[], Config]] = web.AppKey("config")
POOL = web.AppKey("pool", Pool)
HUB = web.AppKey("hub", LogHub)
SWAPS = web.AppKey("swaps", SwapLog)
METRICS = web.AppKey("metrics", Metrics)


def config_of(request: web.Request) -> Config:
    """Give the config as it is now; a request keeps the one that it came under."""
    return request.app[CONFIG]()
