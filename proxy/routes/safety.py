"""Requests and pictures held against `safety`, before anything is spent on them, or leaves."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Sequence
from typing import NoReturn

from aiohttp import web

from proxy.body import Body
from proxy.body.texts import PROMPTS, SPOKEN
from proxy.config import Check, Config, OutputConfig, Terms, terms_for
from proxy.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    HotseatError,
    SafetyRefused,
    SafetyUnknown,
)
from proxy.forward import ERROR_STATUS, Errand
from proxy.jobs import KeptAnswer
from proxy.pictures import sniff
from proxy.routes import aside, paths
from proxy.routes.destination import Local, Place
from proxy.routes.keys import METRICS, config_of
from proxy.safety import (
    OutputFailed,
    Unclear,
    Verdicts,
    asked,
    judged,
    pictures_in,
    refused_by,
    verdict_in,
)

log = logging.getLogger(__name__)

VERDICTS = web.AppKey("verdicts", Verdicts)
CHAT = "/v1/chat/completions"
MOST_PAINTED, MOST_SAID = 1 << 15, 1 << 18
"""Characters of a prompt, and of all that is said: more is not checked, and so not let through."""
QUICK = 1 << 16
"""Characters times rules: what is more is done beside the loop."""
ANSWER_BYTES = 64 << 10
INFLATED_BYTES = 1 << 30


def terms_of(config: Config, place: Place, path: str) -> Terms | None:
    """Tell what holds for a POST for the model at this path; None: nothing."""
    return _terms(config, place, paints=_paints(path))


def is_held_to_terms(config: Config, place: Place, path: str) -> bool:
    """Tell whether something holds for a POST that comes to the worker by its own path."""
    is_known = paths.plainly(path) in paths.POSTED or _paints(path)
    return is_known and terms_of(config, place, path) is not None


def see_it_shows_nothing(config: Config, place: Place, path: str) -> None:
    """Raise BadRequest where a worker would show a picture while it is still being painted."""
    terms = _terms(config, place, paints=True)
    if (
        terms is not None
        and terms.output is not None
        and paths.plainly(path).endswith("/progress")
    ):
        raise _not_here(place)


def _terms(config: Config, place: Place, *, paints: bool) -> Terms | None:
    own_id = place.model_id if isinstance(place, Local) else ""  # a peer's model has no own rules
    return terms_for(config.safety_read, own_id, paints=paints)


def _not_here(place: Place) -> BadRequest:
    told = f"pictures of {place.name} are judged before they leave: ask at /v1/images/..."
    return BadRequest(told, code="judged_elsewhere")


def _paints(path: str) -> bool:
    """Tell whether anybody may take the path for one of those where pictures are made."""
    return paths.plainly(path).endswith(tuple(paths.PAINTED))


async def see_it_may(request: web.Request, place: Place, path: str, body: Body) -> None:
    """Hold what is asked for against the rules. Raises SafetyRefused and SafetyUnknown.

    A prompt is what is to be painted. What is not to be painted is not looked at: it names what
    somebody does not want to see. Of other requests all words count, as far back as they go.
    """
    terms = terms_of(config_of(request), place, path)
    if terms is None:
        return
    paints = _paints(path)
    if terms.output is not None and paints and not paths.is_painted(request.path):
        raise _not_here(place)
    texts = await body.texts(*((PROMPTS, MOST_PAINTED) if paints else (SPOKEN, MOST_SAID)))
    texts = [text for text in texts if text.strip()]
    if not texts:
        return
    label = await _refused(terms, texts)
    if label is None and terms.check is not None:
        label = await _judged_by(terms.check, request, texts, allows_persons=terms.allows_persons)
    if label is not None:
        _refuse(request, place.name, label, "prompt" if paints else "messages")


async def _refused(terms: Terms, texts: Sequence[str]) -> str | None:
    if sum(map(len, texts)) * (1 + len(terms.rules)) < QUICK:
        return refused_by(terms, texts)
    return await asyncio.to_thread(refused_by, terms, texts)


async def _judged_by(
    check: Check, request: web.Request, texts: Sequence[str], *, allows_persons: bool
) -> str | None:
    """Ask the model, unless it has said so before. Raises SafetyUnknown where it cannot tell."""
    known = request.app[VERDICTS]
    model = config_of(request).models[check.model_id]
    way = repr((check, allows_persons, model.kind, model.options, model.cmd))
    key = known.key(texts, way)
    if key in known:
        return known.recall(key)
    document = asked(check, texts, allows_persons=allows_persons)
    try:
        raw = await aside.ask(request, check.model_id, CHAT, document, most_bytes=ANSWER_BYTES)
        label = verdict_in(raw, check, allows_persons=allows_persons)
    except (Cancelled, DeadlineExceeded):
        raise
    except BadRequest as error:
        told = f"{check.model_id}, which judges requests here, does not take this text: send less"
        raise BadRequest(told, code=SafetyUnknown.code) from error
    except HotseatError as error:  # its message may repeat what it was asked
        told = f"{check.model_id}, which judges requests here, cannot be asked: {error.told_code}"
        raise SafetyUnknown(told, retry_after_s=error.retry_after_s) from error
    except Unclear:
        told = f"{check.model_id}, which judges requests here, says neither safe nor unsafe"
        raise SafetyUnknown(told) from None
    known.note(key, label)
    return label


def output_of(errand: Errand) -> OutputConfig | None:
    """Tell by which command the pictures that are painted for this are judged; None: by none."""
    read = errand.config.safety_read
    terms = terms_for(read, errand.model_id, paints=True)
    return terms.output if terms is not None else None


async def see_it_may_leave(errand: Errand, answer: KeptAnswer, output: OutputConfig) -> None:
    """Hold the pictures of a kept answer against the command. Raises as `see_it_may` does."""
    if answer.status >= ERROR_STATUS:
        return
    try:
        pictures = await asyncio.to_thread(_pictures_of, answer)
        for picture in pictures:
            label = await judged(picture, output, errand.config.folder)
            if label is not None:
                _refuse(errand.request, errand.model_id, label, None)
    except (OutputFailed, OSError, ValueError, RecursionError, zlib.error) as error:
        log.warning("output_not_judged", extra={"model": errand.model_id, "why": error})
        why = error if isinstance(error, OutputFailed) else "the answer cannot be read to its end"
        told = f"the command that judges pictures here could not: {why}"  # its path is our own
        raise SafetyUnknown(told) from error
    if not pictures and not answer.is_cut:
        raise SafetyUnknown("the answer holds no picture that could be judged")


def _pictures_of(answer: KeptAnswer) -> Sequence[bytes]:
    raw = answer.path.read_bytes()
    encodings = {k.lower(): v for k, v in answer.headers.items()}.get("content-encoding")
    if encodings:
        raw = zlib.decompressobj(wbits=47).decompress(raw, INFLATED_BYTES)  # gzip or zlib
    return list(pictures_in(raw, lambda one: sniff(one) is not None))


def _refuse(request: web.Request, name: str, label: str, param: str | None) -> NoReturn:
    """Count it and raise; `param` is where it was asked for, None: it is painted already."""
    request.app[METRICS].safety_refusals.labels(name, label).inc()
    log.info("safety_refused", extra={"model": name, "label": label, "path": request.path})
    what = "what was painted" if param is None else "what is asked for"
    told = f"{what} is refused by the safety rule {label!r} of this server; ask for something else"
    raise SafetyRefused(told, param=param)
