"""What is worth knowing of a file though it is sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.config.company import notes_on_company
from proxy.config.document import Document, Problem
from proxy.config.filters import PROTECTED
from proxy.config.schema import COMFYUI, COMFYUI_CONCURRENCY, Config

NOT_NEEDED: Mapping[str, str] = {
    "captureBuffer": "changes nothing: requests and answers are not kept",
    "store": "changes nothing: there is no database",
    "logTimeFormat": "changes nothing: the log has times of its own",
    "logRequests": "changes nothing: each request has its line in the log",
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
    for model_id in config.models:
        where = ("models", model_id)
        if model_id == COMFYUI:
            told = f"gets {COMFYUI_CONCURRENCY} requests at once or more, and ignoreWebsockets"
            yield Problem(where, told)
        for key in _protected(_at(data, *where, "filters")):
            told = f"leaves {PROTECTED!r} as it is: no filter changes it"
            yield Problem((*where, "filters", key), told)


def _at(data: object, *where: str) -> object:
    for part in where:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _protected(filters: object) -> Iterator[str]:
    """Name the filters that would change what no filter may."""
    for key in ("stripParams", "strip_params"):
        said = _at(filters, key)
        names = (
            said.split(",") if isinstance(said, str) else said if isinstance(said, list) else []
        )
        if PROTECTED in (str(name).strip() for name in names):
            yield key
    if _at(filters, "setParams", PROTECTED) is not None:
        yield "setParams"
