"""Pictures on their way to a model: those that a body only names are put into it, or into words.

A reference leads to a picture that was sent earlier, an address to one elsewhere in the world; and
a model that cannot see is told what another one sees. All of it is done before the request takes
its turn, so that no two models wait for each other.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar, assert_never
from urllib.parse import quote

from aiohttp import web

from proxy.body import Body, Change, Edit, Inline, Odd, Picture, Reference, Remote
from proxy.errors import BadRequest, HotseatError
from proxy.forward import Errand
from proxy.pictures import REFERENCE
from proxy.routes import access, paths
from proxy.routes.able import refuse_pictures
from proxy.routes.carried import Filed, Seen, no_picture, no_such_picture, not_fetched, seen
from proxy.routes.describing import DESCRIPTIONS, Key, described, key_of
from proxy.routes.destination import Load, Local, Place
from proxy.routes.inflight import REFERENCES
from proxy.routes.keys import FILES, config_of
from proxy.routes.serving import Run
from proxy.routes.waiting import meanwhile

log = logging.getLogger(__name__)

FALLBACK: Final = "X-Vision-Fallback"
NAMED: Final = frozenset({*paths.PAINTED, "/images/descriptions"})
"""Where pictures stand in fields of the body."""
NOT_KEPT: Final = "-"
MOST: Final = 100
"""Pictures of one request that are our work: each is an open file, and may be a question. So many
that are remembered fit into one header, too."""
SEEN_AT_ONCE: Final = 4
"""Each may be in memory as a whole."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be done about the pictures of one request."""

    request: web.Request
    body: Body
    named: Sequence[Picture] = ()  # to be put into the body
    told: Sequence[Picture] = ()  # to be put into words
    kept: Sequence[Picture] = ()  # to be remembered
    describer: str = ""  # whose words they are

    def __bool__(self) -> bool:
        return bool(self.named or self.told or self.kept)


async def sight_of(
    request: web.Request, place: Place, body: Body, look: Callable[[], Load]
) -> Sight:
    """Tell what is to be done about a request's pictures. Raises BadRequest or NotFound.

    Those that stand in the body are left as they are, and so is what a foreign server may know.
    """
    config, path = config_of(request), paths.plain(request.path)
    is_chat, has_pictures = paths.need_of(path) == "chat", body.peek.has_pictures
    is_read = path in NAMED or path == paths.RESPONSES or (path == paths.CHAT and has_pictures)
    every = await body.pictures() if is_read else ()
    model = config.models[place.model_id] if isinstance(place, Local) else None
    if isinstance(place, Local) and is_chat and (every or has_pictures):
        refuse_pictures(config, place.model_id, request.path, look)
    describer = config.eyes_of(model) if model is not None and is_chat else None
    is_foreign = describer is None and (model is None or model.kind == "cmd")
    named = _few(one for one in every if _is_ours(request, one, is_foreign=is_foreign))
    remembers = is_chat and config.files.remember
    kept = [one for one in every if remembers and isinstance(one.source, Inline)][:MOST]
    if describer is None:
        return Sight(request, body, named, kept=kept)
    for one in (told := _few(every)):
        if isinstance(one.source, Odd):
            raise no_picture(one)
    return Sight(request, body, told=told, kept=kept, describer=describer)


def seeing(sight: Sight, edit: Edit, run: Run) -> Run:
    """Let the pictures be seen to first, where there is something to be done about them."""
    return partial(_see_first, sight, edit, run) if sight else run


def _few(pictures: Iterable[Picture]) -> Sequence[Picture]:
    """List them; no more of them are looked for than there may be. Raises BadRequest."""
    few = [*islice(pictures, MOST + 1)]
    if len(few) > MOST:
        told = f"no more than {MOST} pictures are put into a request, or into words: send fewer"
        raise BadRequest(told, param=few[MOST].where, code="too_many_images")
    return few


def _is_ours(request: web.Request, picture: Picture, *, is_foreign: bool) -> bool:
    """Tell whether it is for us to put the picture there. Raises BadRequest or NotFound."""
    match picture.source:
        case Inline() | Odd():
            return False
        case Remote():
            is_fetched = config_of(request).fetch_images is not None
            if not is_fetched and not is_foreign:
                raise not_fetched(picture)
            return is_fetched
        case Reference(name) as source:
            if request.app[FILES].find(name) is not None:
                return True
            if is_foreign and REFERENCE.fullmatch(name) is None:
                return False  # it may be a name of its own
            raise no_such_picture(picture, source)
        case _:
            assert_never(picture.source)


async def _see_first(sight: Sight, edit: Edit, run: Run, errand: Errand) -> web.StreamResponse:
    """Do about the pictures what is to be done, and go on with the body that comes of it."""
    if sight.kept:
        kept = await _together((_remembered(sight, one) for one in sight.kept), SEEN_AT_ONCE)
        errand.marks = {**errand.marks, REFERENCES: ", ".join(kept)}
    if sight.told:
        told = f"{sight.describer} describes the pictures"
        body = await meanwhile(errand, _in_words(sight, errand), told)
    elif sight.named:
        body = await meanwhile(errand, _filled(sight), "the pictures are fetched")
    else:
        return await run(errand)
    with body:
        body.edit(edit)
        errand.body = body
        return await run(errand)


async def _remembered(sight: Sight, picture: Picture) -> str:
    """Keep a picture and give its reference; a chat does not fail because that fails."""
    store, owner = sight.request.app[FILES], access.owner_of(sight.request)
    with ExitStack() as held:
        try:
            raw = await (await seen(sight.request, sight.body, picture, held)).whole()
            return (await asyncio.to_thread(store.put, raw, None, owner)).id
        except HotseatError as error:
            log.info("not_remembered", extra={"where": picture.where, "why": error.message})
            return NOT_KEPT


async def _filled(sight: Sight) -> Body:
    """Make the body that has the pictures in it which it names. Raises NotFound, BadRequest."""
    with ExitStack() as held:
        files = await _all_seen(sight, sight.named, held)
        changes = [
            Change(one.place, partial(_put, one, file))
            for one, file in zip(sight.named, files, strict=True)
            if isinstance(file, Filed)
        ]
        return await _changed(sight, changes)


async def _in_words(sight: Sight, errand: Errand) -> Body:
    """Make the body that has words where it had pictures. Raises what their describer raises."""
    known, describer = sight.request.app[DESCRIPTIONS], sight.describer
    with ExitStack() as held:
        _mark(errand, describer, f"pictures={len(sight.told)}")
        pictures = await _all_seen(sight, sight.told, held)
        keys = [key_of(errand.config, describer, one.digest) for one in pictures]
        fresh = [key for key in dict.fromkeys(keys) if key not in known]
        _mark(errand, describer, f"pictures={len(keys)}; described={len(fresh)}")
        at_once = min(SEEN_AT_ONCE, errand.config.concurrency(errand.config.models[describer]))
        one_of = dict(zip(keys, zip(sight.told, pictures, strict=True), strict=True))
        works = (_words(sight, key, *one) for key, one in one_of.items())
        words = dict(zip(one_of, await _together(works, at_once), strict=True))
    changes = [
        Change(one.part, partial(_tell, one, f"[Picture {number}: {words[key]}]"))
        for number, (one, key) in enumerate(zip(sight.told, keys, strict=True), 1)
        if one.part is not None
    ]
    return await _changed(sight, changes)


async def _words(sight: Sight, key: Key, picture: Picture, content: Seen) -> str:
    """Give the words on one picture. Raises what its describer raises."""

    async def ask() -> str:
        return await described(sight.request, sight.describer, await content.whole())

    try:
        return await sight.request.app[DESCRIPTIONS].of(key, ask)
    except BadRequest as error:  # of the describer, which was not told where the picture stands
        told = f"{picture.where}: {error.message}"
        raise BadRequest(told, param=picture.where, code=error.told_code) from None


def _mark(errand: Errand, describer: str, told: str) -> None:
    errand.marks = {**errand.marks, FALLBACK: f"{quote(describer)}; {told}"}


async def _put(picture: Picture, file: Filed) -> AsyncIterator[bytes]:
    yield picture.before
    async for piece in file.as_uri():
        yield piece
    yield picture.after


async def _tell(picture: Picture, words: str) -> AsyncIterator[bytes]:
    yield json.dumps({"type": picture.text_type, "text": words}).encode()


async def _changed(sight: Sight, changes: Sequence[Change]) -> Body:
    return await sight.body.changed(changes, config_of(sight.request).max_body_bytes)


async def _all_seen(sight: Sight, pictures: Sequence[Picture], held: ExitStack) -> list[Seen]:
    """Open them; what is named more than once is asked for once."""
    first = {one.source: one for one in reversed(pictures)}
    works = (seen(sight.request, sight.body, one, held) for one in first.values())
    opened = dict(zip(first, await _together(works, SEEN_AT_ONCE), strict=True))
    return [opened[one.source] for one in pictures]


async def _together(works: Iterable[Coroutine[Any, Any, _T]], at_once: int) -> list[_T]:
    """Await them all, some at a time. Raises the first error, which ends the others."""
    turns = asyncio.Semaphore(at_once)

    async def in_turn(work: Coroutine[Any, Any, _T]) -> _T:
        async with turns:
            return await work

    try:
        async with asyncio.TaskGroup() as tasks:
            begun = [tasks.create_task(in_turn(work)) for work in works]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in begun]
