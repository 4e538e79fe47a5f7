"""What handlers find in the application."""

from aiohttp import web

from proxy.config import Config
from proxy.logs import LogHub
from proxy.pool import Pool

CONFIG = web.AppKey("config", Config)
POOL = web.AppKey("pool", Pool)
HUB = web.AppKey("hub", LogHub)
