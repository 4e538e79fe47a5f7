"""What is worth knowing of a file though it is sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.config.company import notes_on_company
from proxy.config.document import Document, Problem, Where
from proxy.config.filters import PROTECTED
from proxy.config.safety import notes_on_safety
from proxy.config.schema import COMFYUI, COMFYUI_CONCURRENCY, Config
from proxy.config.virtual import notes_on_pins
from proxy.macros import names_in

NOT_NEEDED: Mapping[str, str] = {
    "captureBuffer": "changes nothing: requests and answers are not kept",
    "store": "changes nothing: there is no database",
    "logTimeFormat": "changes nothing: the log has times of its own",
    "logRequests": "changes nothing: each request has its line in the log",
}
UNUSED_TIMEOUTS: Mapping[str, str] = {
    "keepalive": "changes nothing: the system looks after connections",
    "expectContinue": "changes nothing: a body is sent unasked",
    "idleConn": "changes nothing: idle connections have a fixed time",
}
FLOOR_S = 15
OF_LLAMA_SWAP = f"counts as it is written; llama-swap would make it {FLOOR_S}"


def notes_on(config: Config, document: Document) -> Iterator[Problem]:
    data = document.data if isinstance(document.data, dict) else {}
    yield from (Problem((key,), told) for key, told in NOT_NEEDED.items() if data.get(key))
    if config.health_check_timeout < FLOOR_S:
        yield Problem(("healthCheckTimeout",), OF_LLAMA_SWAP)
    if ("upstream", "ignorePaths") in document.places and not _at(data, "upstream", "ignorePaths"):
        yield Problem(("upstream", "ignorePaths"), "is the standard list, as an empty one is")
    yield from notes_on_company(config)
    yield from notes_on_pins(config)
    yield from notes_on_safety(config)
    if COMFYUI in config.models:
        told = f"gets {COMFYUI_CONCURRENCY} requests at once or more, and ignoreWebsockets"
        yield Problem(("models", COMFYUI), told)
    places = [*(("models", name) for name in config.models), *(("peers", p) for p in config.peers)]
    for where in places:
        yield from _notes_on_place(data, where)


def _notes_on_place(data: object, where: Where) -> Iterator[Problem]:
    """Tell what changes nothing for a model, or for a peer."""
    if any(names_in(where[-1])):
        yield Problem(where, "is the id as it stands: keys hold no macros")
    for key, told in UNUSED_TIMEOUTS.items():
        if _at(data, *where, "timeouts", key) is not None:
            yield Problem((*where, "timeouts", key), told)
    for path in _protected(_at(data, *where, "filters")):
        told = f"leaves {PROTECTED!r} as it is: no filter changes it"
        yield Problem((*where, "filters", *path), told)


def _at(data: object, *where: str) -> object:
    for part in where:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _protected(filters: object) -> Iterator[Where]:
    """Name the filters that would change what no filter may."""
    for key in ("stripParams", "strip_params"):
        said = _at(filters, key)
        names = (
            said.split(",") if isinstance(said, str) else said if isinstance(said, list) else []
        )
        if PROTECTED in (str(name).strip() for name in names):
            yield (key,)
    by_id = _at(filters, "setParamsByID")
    ids = by_id if isinstance(by_id, dict) else ()
    for path in (("setParams",), *(("setParamsByID", str(one)) for one in ids)):
        if _at(filters, *path, PROTECTED) is not None:
            yield path
