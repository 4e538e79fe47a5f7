"""What handlers find in the application."""

from aiohttp import web

from proxy.config import Config
from proxy.logs import LogHub
from proxy.metrics import Metrics
from proxy.pool import Pool
from proxy.swaps import SwapLog

CONFIG = web.AppKey("config", Config)
POOL = web.AppKey("pool", Pool)
HUB = web.AppKey("hub", LogHub)
SWAPS = web.AppKey("swaps", SwapLog)
METRICS = web.AppKey("metrics", Metrics)
