"""The active profile: which one it is, and how it is changed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from proxy.body import read_blindly
from proxy.config import Config
from proxy.errors import BadRequest, NotFound
from proxy.routes.feed import Feed
from proxy.routes.keys import config_of

KIND = "profileChanged"
REQUEST_BYTES = 64 << 10


class ActiveProfile:
    """None at first, and again with another config."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._config: Config | None = None  # in which the name was chosen
        self._name: str | None = None

    def name(self, config: Config) -> str | None:
        return self._name if config is self._config else None

    def pins(self, config: Config) -> Mapping[str, str]:
        """Tell which names lead elsewhere; to nothing: they are taken away."""
        name = self.name(config)
        pins = config.profiles[name].pins if name is not None else {}
        return {asked: target or "" for asked, target in pins.items()}

    def activate(self, config: Config, name: str | None) -> None:
        """Make it the active one, or none. Raises NotFound."""
        if name is not None and name not in config.profiles:
            known = ", ".join(config.profiles) or "none"
            raise NotFound(f'profile "{name[:100]}" not found; there is: {known}')
        is_new = name != self.name(config)
        self._config, self._name = config, name
        if is_new:
            self._feed.tell(KIND, {"active": name})


ACTIVE = web.AppKey("active_profile", ActiveProfile)


async def list_profiles(request: web.Request) -> web.Response:
    """Answer GET /api/profiles."""
    config = config_of(request)
    profiles = [
        {
            "id": name,
            "description": profile.description,
            "pins": {asked: target or "" for asked, target in profile.pins.items()},
        }
        for name, profile in sorted(config.profiles.items())
    ]
    active = request.app[ACTIVE].name(config)
    return web.json_response({"active": active, "profiles": profiles})


async def activate(request: web.Request) -> web.Response:
    """Answer PUT /api/profiles/active, with {"name": which, or null for none}."""
    config = config_of(request)
    name = await _asked(request, config.stall_timeout)
    request.app[ACTIVE].activate(config, name or None)
    return web.json_response({"active": request.app[ACTIVE].name(config)})


async def _asked(request: web.Request, stall_s: float) -> str | None:
    with await read_blindly(request, REQUEST_BYTES, stall_s) as body:
        raw = b"".join([bytes(chunk) async for chunk in body.chunks()])
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise BadRequest('invalid profile request; send {"name": "…"} or {"name": null}')
    if "name" not in told:
        raise BadRequest('profile name is required; send {"name": null} for none', param="name")
    name = told["name"]
    if name is not None and not isinstance(name, str):
        raise BadRequest("profile name must be a string or null", param="name")
    return name
