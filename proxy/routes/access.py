"""Who may ask: with `apiKeys` every path but a few open ones needs one of them."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Iterator

from aiohttp import web

from proxy.config import ApiKey, Owner
from proxy.errors import Unauthorized
from proxy.forward import KEYS
from proxy.routes import paths
from proxy.routes.keys import config_of
from proxy.routes.middleware import Handler

KEY = web.RequestKey("key", ApiKey)
OPEN = frozenset(
    {"/", "/favicon.ico", "/health", "/healthz", "/ready", "/upstream", "/wol-health"}
)
"""What looks whether we live holds no key; nothing but that is told there to who has none."""
HOW = 'send it as "Authorization: Bearer KEY" or "x-api-key: KEY"'


@web.middleware
async def require_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let only who has a key pass, and note which it was. Raises Unauthorized."""
    keys = config_of(request).api_keys
    offered = [key for key in _offered(request) if key]
    entry = _matching(keys, offered)
    if entry is not None:
        request[KEY] = entry
    elif keys and not _is_open(request):
        wrong = "the API key is not one of this server's" if offered else "this needs an API key"
        raise Unauthorized(f"{wrong}; {HOW}")
    return await handler(request)


def _is_open(request: web.Request) -> bool:
    """Tell whether no key is needed: for probes, preflights, and links that are secrets."""
    is_look = request.method in ("GET", "HEAD")  # what is sent there may be meant for a worker
    is_link = is_look and request.path.startswith(paths.RESULTS)
    return is_link or request.path in OPEN or request.method == "OPTIONS"


def is_trusted(request: web.Request) -> bool:
    """Tell whether details are for this one: who has a key, or anybody where there are none."""
    return KEY in request or not config_of(request).api_keys


def priority_of_key(request: web.Request) -> int | None:
    """Tell how urgent the requests of this one's key are, if that is said."""
    entry = request.get(KEY)
    return entry.priority if entry else None


def owner_of(request: web.Request) -> Owner | None:
    """Tell whose key let this one in; None: there are no keys."""
    entry = request.get(KEY)
    return entry.owner if entry else None


def is_ones_own(request: web.Request, owner: Owner | None) -> bool:
    """Tell whether something is for this one: what his key has made, or nobody's in particular."""
    return not config_of(request).api_keys or owner in (None, owner_of(request))


def withheld(request: web.Request) -> tuple[str, ...]:
    """Name the headers that may hold a key to us, which no worker must see."""
    return KEYS if KEY in request else ()


def _offered(request: web.Request) -> Iterator[bytes]:
    """Yield what may be a key; every header counts, as clients send placeholders along."""
    for value in request.headers.getall("Authorization", ()):
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer":
            yield _encoded(credentials.strip())
        elif scheme.lower() == "basic":
            yield _password(credentials.strip())
    for value in request.headers.getall("x-api-key", ()):
        yield _encoded(value.strip())


def _password(credentials: str) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as aiohttp has decoded it


def _matching(keys: Iterable[ApiKey], offered: Iterable[bytes]) -> ApiKey | None:
    """Compare everything with everything: how long it takes tells nothing."""
    found = [
        entry
        for one in offered
        for entry in keys
        if hmac.compare_digest(one, _encoded(entry.key.get_secret_value()))
    ]
    return found[0] if found else None
