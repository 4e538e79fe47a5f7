"""What handlers find in the application."""

from collections.abc import Callable

from aiohttp import web

from proxy.config import Config
from proxy.logs import LogHub
from proxy.metrics import Metrics
from proxy.pictures import Fetcher, PictureStore
from proxy.pool import Pool
from proxy.reload import Reloader
from proxy.swaps import SwapLog

CONFIG: web.AppKey[Callable[[], Config]] = web.AppKey("config")
POOL = web.AppKey("pool", Pool)
HUB = web.AppKey("hub", LogHub)
SWAPS = web.AppKey("swaps", SwapLog)
METRICS = web.AppKey("metrics", Metrics)
FILES = web.AppKey("files", PictureStore)
FETCHER = web.AppKey("fetcher", Fetcher)
RELOADER = web.AppKey("reloader", Reloader)
CAME_UNDER = web.RequestKey("config", Config)


def config_of(request: web.Request) -> Config:
    """Give the config that the request came under; it keeps that, whatever is reloaded."""
    config = request.get(CAME_UNDER)
    if config is None:
        config = request[CAME_UNDER] = request.app[CONFIG]()
    return config
