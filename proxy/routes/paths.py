"""Which paths are requests for a model, what it must be able to do, and what its worker sees.

PURE. The model stands in the body of a POST (a field of JSON or of a form), or in the query of a
GET. What is not listed but stands under one of `PREFIXES` is such a request too: a worker may know
paths that we do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from posixpath import normpath
from typing import Final
from urllib.parse import unquote

NEEDS: Final[Mapping[str, str]] = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/messages": "chat",
    "/messages/count_tokens": "chat",
    "/completions": "completions",
    "/completion": "completions",
    "/embeddings": "embeddings",
    "/rerank": "rerank",
    "/reranking": "rerank",
    "/images/generations": "image_generation",
    "/images/edits": "image_edit",
    "/images/variations": "image_edit",
    "/images/descriptions": "describe",
    "/sdapi/v1/txt2img": "image_generation",
    "/sdapi/v1/img2img": "image_edit",
}
"""What a model must be able to do at a path, without its /v1 or /v."""

BUNDLED: Final = frozenset(
    {
        "/chat/completions",
        "/completions",
        "/embeddings",
        "/rerank",
        "/images/generations",
        "/images/edits",
        "/images/variations",
        "/images/descriptions",
        "/sdapi/v1/txt2img",
        "/sdapi/v1/img2img",
    }
)
"""All that our own workers serve, without /v1: to be asked elsewhere is not worth a swap."""

PAINTED: Final = frozenset(path for path, need in NEEDS.items() if need.startswith("image_"))
"""Where pictures are made: that takes long, so each request is a job that can be asked about."""

CHAT: Final = "/chat/completions"
RESPONSES: Final = "/responses"
TOLD: Final = frozenset({CHAT, RESPONSES})
"""Where words can stand in the places of pictures."""

RESULTS: Final = "/v1/images/results/"
"""Below it, pictures are open to all: who was given the name of one was given the picture."""

PREFIXES: Final = ("/v1/", "/v/", "/sdapi/")
ASKED: Final = ("/v1/audio/voices", "/props")
"""GETs whose query names the model."""

_SPOKEN = ("/audio/speech", "/audio/voices", "/audio/transcriptions")
_BARE = ("/infill", "/completion", "/audioapi/v1/tasks/run")
_RENAMED: Final[Mapping[str, str]] = {"/audioapi/v1/tasks/run": "/v1/tasks/run"}


def _posted() -> Iterable[str]:
    plain = [path for path in NEEDS if not path.startswith("/sdapi/")]
    for path in (*plain, *_SPOKEN):
        yield f"/v1{path}"
    for path in plain:
        yield path
        if not path.startswith("/images/"):
            yield f"/v{path}"
    yield from (path for path in NEEDS if path.startswith("/sdapi/"))
    yield from _BARE


POSTED: Final = tuple(dict.fromkeys(_posted()))
"""POSTs whose body names the model, as far as they are known by name."""


def is_for_a_model(method: str, path: str, prefixes: Iterable[str] = ()) -> bool:
    """Tell whether a request is for the model that it names; `prefixes` are the config's own."""
    if method == "GET":
        return path in ASKED
    if method != "POST":
        return False
    own = [prefix.rstrip("/") for prefix in prefixes]
    further = (f"{prefix}/" for prefix in own)
    return path in POSTED or path in own or path.startswith((*PREFIXES, *further))


def need_of(path: str) -> str | None:
    """Name what a model must be able to do to be asked at a path; None: nobody knows."""
    return NEEDS.get(plain(path))


def is_painted(path: str) -> bool:
    """Tell whether pictures are made at the path."""
    return plain(path) in PAINTED


def has_checkpoint(path: str) -> bool:
    """Tell whether the path is one of AUTOMATIC1111's, where the model may be left to us."""
    return path in NEEDS and path.startswith("/sdapi/")


def is_bundled(path: str) -> bool:
    """Tell whether a worker of ours may know the path."""
    return plain(path) in BUNDLED


def plain(path: str) -> str:
    """Take the /v1 or /v off a path."""
    for prefix in ("/v1/", "/v/"):
        if path.startswith(prefix):
            return path[len(prefix) - 1 :]
    return path


def plainly(path: str) -> str:
    """Give a path without its query as a server that takes spellings lightly may read it."""
    return normpath(unquote(path.partition("?")[0])).lower()


def without(target: str, name: str) -> str:
    """Leave a field of its query out of a request's target; the others stay as they came."""
    path, _, query = target.partition("?")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] != name)
    return f"{path}?{kept}" if kept else path


def upstream_path(target: str) -> str:
    """Give what the worker is asked at, for a path with or without its query."""
    path, mark, query = target.partition("?")
    path = path[2:] if path.startswith("/v/") else _RENAMED.get(path, path)
    return f"{path}{mark}{query}"
