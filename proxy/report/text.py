"""What is known of memory, written for a terminal. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import isqrt
from textwrap import wrap

from proxy.demand import Source
from proxy.memory import HOST
from proxy.process import Estimate, Part
from proxy.report.outlook import Company, Entry, Outlook, Room, company
from proxy.scheduler import Demand
from proxy.units import GIB, KIB, MIB

WIDTH = 96
GAP = "  "
HEADINGS = ("model", "lives on", "GPU", "host", "known from", "alone")
RIGHT = ("GPU", "host")  # columns of numbers
HARD_SPACE = "\N{NO-BREAK SPACE}"
_BEFORE_UNIT = re.compile(" (?=[KMG]iB)")

Row = tuple[str, ...]


def text(outlook: Outlook) -> str:
    """Write it all down: the devices, each model by its parts, who fits beside whom."""
    sections = [
        _rooms(outlook),
        _models(outlook),
        *(_company(outlook, room) for room in outlook.rooms),
        *(_too_big(outlook, entry) for entry in outlook.too_big),
    ]
    written = ("\n".join(section) for section in sections)
    return "\n\n".join(section for section in written if section) + "\n"


def size(count_bytes: int) -> str:
    """Write a size with one decimal, so that those in a column line up."""
    mebibytes = round(count_bytes / MIB, 1)
    if mebibytes >= GIB // MIB:
        return f"{count_bytes / GIB:.1f} GiB"
    if mebibytes or not count_bytes:
        return f"{mebibytes} MiB"
    return f"{count_bytes / KIB:.1f} KiB"


def _rooms(outlook: Outlook) -> Iterator[str]:
    rows: list[Row | str] = [
        (one.device, "-" if one.count_bytes is None else size(one.count_bytes), one.told)
        for one in outlook.rooms
    ]
    yield from _table(rows, right=(1,))
    if outlook.trouble:
        yield from _wrapped(f"no budget can be told here: {outlook.trouble}")
    elif outlook.unseen:
        yield from _wrapped(f"no GPU can be looked at: {outlook.unseen}")


# The models


def _models(outlook: Outlook) -> Iterator[str]:
    rows: list[Row | str] = []
    for entry in outlook.entries:
        rows += ["", _head(outlook, entry), *_parts(entry), *_pictures(outlook, entry)]
    yield from _table(rows, right=[HEADINGS.index(name) for name in RIGHT], headings=HEADINGS)


def _head(outlook: Outlook, entry: Entry) -> Row:
    lives_on = "+".join(entry.lives_on)
    if entry.source is Source.UNKNOWN:
        gpu, host = ("?", "") if entry.is_on_gpu else ("", "?")
        return entry.name, lives_on, gpu, host, entry.source.value, "gets all there is"
    alone = _alone(outlook, entry)
    told = f"pinned, {alone}".removesuffix(", ") if entry.is_pinned else alone
    return entry.name, lives_on, *_columns(entry.demand), entry.source.value, told


def _columns(demand: Demand) -> tuple[str, str]:
    """Write what is on GPUs, all of them, and what is on the host."""
    gpu_bytes = sum(count for on, count in demand.items() if on != HOST)
    return _cell(gpu_bytes), _cell(demand.get(HOST, 0))


def _cell(count_bytes: int) -> str:
    return size(count_bytes) if count_bytes else ""


def _alone(outlook: Outlook, entry: Entry) -> str:
    left = outlook.left(entry, entry.demand)
    own = {on: count for on, count in left.items() if on in entry.lives_on or count < 0}
    if not own:
        return ""
    on = min(own, key=lambda on: own[on])
    where = f" on {on}" if (on,) != entry.lives_on else ""
    if own[on] < 0:
        return f"{size(-own[on])} too big{where}"
    return f"fits, {size(own[on])} left{where}"


def _parts(entry: Entry) -> Iterator[Row]:
    if entry.estimate is None:
        return
    held = [part for part in entry.estimate.parts if entry.is_on_gpu or part.place != "context"]
    whats: dict[str, list[Part]] = {}
    for part in held:
        whats.setdefault(part.what, []).append(part)
    for what, parts in whats.items():
        yield _part(entry, what, parts)
    if request_bytes := entry.estimate.request_bytes(None):
        request = Part(what=_picture(entry.estimate), place="device", bytes=request_bytes)
        yield _part(entry, request.what, [request])
        held.append(request)
    in_all = _part(entry, "estimated in all", held)
    if in_all[2:4] != _columns(entry.demand):
        yield in_all


def _part(entry: Entry, what: str, parts: Iterable[Part]) -> Row:
    on_gpu, on_host = 0, 0
    for part in parts:
        if entry.is_on_gpu and part.place != "host":
            on_gpu += part.count_bytes
        else:
            on_host += part.count_bytes
    return f"  {what}", "", _cell(on_gpu), _cell(on_host), "", ""


def _picture(estimate: Estimate) -> str:
    """Say which picture a plain request asks for."""
    pixels = estimate.plain_pixels or estimate.requests[-1].up_to_pixels
    side = isqrt(pixels)
    told = f"{side}x{side}" if side * side == pixels else f"{pixels / 1e6:.1f} megapixels"
    return f"a picture, {told}"


def _pictures(outlook: Outlook, entry: Entry) -> Iterator[str]:
    """Tell what pictures of each size need; of those that need the same, only the largest.

    One that needs less than a smaller one is decoded in tiles, as there can never be more.
    """
    fits: dict[str, str] = {}
    too_big, most_bytes = "", 0
    for name, demand in entry.pictures.items():
        needed_bytes = sum(demand.get(on, 0) for on in entry.lives_on)
        tiles = f"{HARD_SPACE}in{HARD_SPACE}tiles" if needed_bytes < most_bytes else ""
        told = f"{size(needed_bytes)}{tiles}"
        most_bytes = max(most_bytes, needed_bytes)
        if not outlook.fits(entry, demand):
            too_big = f"too big: {name}{HARD_SPACE}{told}, and larger ones"
            break
        fits[told] = name
    if len(fits) > 1 or too_big:
        each = ", ".join(f"{name}{HARD_SPACE}{told}" for told, name in fits.items())
        label = "  pictures up to "
        yield from _wrapped("; ".join(filter(None, [each, too_big])), label, " " * len(label))


# Who fits beside whom


def _company(outlook: Outlook, room: Room) -> Iterator[str]:
    there = company(outlook, room)
    everyone = [*there.pinned, *there.others]
    is_home = any(room.device in one.lives_on for one in everyone)
    if len(everyone) > 1 and (room.is_budget or is_home):
        yield _heading(room)
        yield from _labelled(list(_facts(there)))


def _heading(room: Room) -> str:
    of = f", {size(room.count_bytes)}" if room.count_bytes is not None else ""
    would = "" if room.is_budget or room.device == HOST else ", if gpu.memory were set"
    return f"together on {room.device}{of}{would}"


def _facts(there: Company) -> Iterator[tuple[str, str]]:
    everyone = [*there.pinned, *there.others]
    if there.left_bytes is None:
        yield "all", _sum(there, everyone)
        return
    if there.pinned:
        yield "always", _sum(there, there.pinned)
    if there.left_bytes < 0:
        return
    if there.fit(there.others):
        yield "all fit", _sum(there, everyone)
        return
    for one, rivals in there.rivals():
        beside = " or ".join(_needs(there, other) for other in rivals)
        yield "no room for", f"{_needs(there, one)} beside {beside}"
    for group in there.groups():
        yield "at once", _sum(there, [*there.pinned, *group])


def _sum(there: Company, entries: Sequence[Entry]) -> str:
    each = [_needs(there, one) for one in entries]
    return " + ".join(each) + (f" = {size(there.bytes_of(entries))}" if len(each) > 1 else "")


def _needs(there: Company, one: Entry) -> str:
    return f"{one.name}{HARD_SPACE}{size(there.bytes_of([one]))}"


def _labelled(facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(label) for label, _ in facts)
    for label, fact in facts:
        head = f"{GAP}{label:{width}}{GAP}"
        yield from _wrapped(fact, head, " " * len(head))


# What cannot be


def _too_big(outlook: Outlook, entry: Entry) -> Iterator[str]:
    held = outlook.pinned_beside(entry)
    budgets = [room.device for room in outlook.rooms if room.is_budget]
    for on, left_bytes in outlook.left(entry, entry.demand).items():
        if left_bytes >= 0:
            continue
        has_bytes = max(0, outlook.known[on] - held.get(on, 0))
        told = (
            f"{entry.name} {'can never' if on in budgets else 'will hardly'} load:"
            f" it needs {size(entry.demand[on])} of {on} ({entry.source.value}),"
            f" and there are {size(has_bytes)}{' beside the pinned' if held.get(on) else ''};"
            f" {size(-left_bytes)} too little."
        )
        yield from _wrapped(told)
    rows: list[Row | str] = [
        (
            "" if number else "try",
            one.what,
            "" if one.needs_bytes is None else size(one.needs_bytes),
            "fits" if one.fits else "",
        )
        for number, one in enumerate(entry.savers)
    ]
    yield from (f"{GAP}{line}" for line in _table(rows, right=(2,)))


# Layout


def _wrapped(line: str, first: str = "", then: str = "") -> list[str]:
    """Break the line, but not at hard spaces, nor between a number and its unit."""
    whole = _BEFORE_UNIT.sub(HARD_SPACE, line)
    lines = wrap(whole, WIDTH, initial_indent=first, subsequent_indent=then)
    return [one.replace(HARD_SPACE, " ") for one in lines]


def _table(
    rows: Sequence[Row | str], right: Sequence[int], headings: Row | None = None
) -> Iterator[str]:
    """Line the columns up, leave out the empty ones, and let pass what is no row."""
    cells = [row for row in rows if not isinstance(row, str)]
    used = [at for at, column in enumerate(zip(*cells, strict=True)) if any(column)]
    top = [] if headings is None else [headings]
    widths = [max(map(len, column)) for column in zip(*top, *cells, strict=True)]
    for row in [*top, *rows]:
        if isinstance(row, str):
            yield row
            continue
        each = (f"{row[at]:{'>' if at in right else '<'}{widths[at]}}" for at in used)
        yield GAP.join(each).rstrip()
