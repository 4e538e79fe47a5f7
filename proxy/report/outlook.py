"""What is known of the models and their devices, and what fits. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.demand import Source
from proxy.memory import HOST
from proxy.process import Estimate
from proxy.scheduler import Demand, Device, total


@dataclass(frozen=True, slots=True)
class Room:
    """A device, and what there is of it for models."""

    device: Device
    count_bytes: int | None  # None: nobody knows, so nothing is too big
    is_budget: bool  # else nothing keeps models within it
    told: str  # for people: where the number comes from


@dataclass(frozen=True, slots=True)
class Saver:
    """Something that makes a model smaller."""

    what: str
    needs_bytes: int | None = None  # then, of the devices that were too small; None: not tried
    fits: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A model, and what is known of its memory."""

    name: str
    lives_on: tuple[Device, ...]
    demand: Demand  # bytes, to be loaded and to serve a plain request
    source: Source
    is_pinned: bool = False
    pictures: Mapping[str, Demand] = field(default_factory=dict)  # by their size, ascending
    estimate: Estimate | None = None
    savers: tuple[Saver, ...] = ()  # where it is too big

    @property
    def is_on_gpu(self) -> bool:
        return HOST not in self.lives_on


@dataclass(frozen=True, slots=True)
class Outlook:
    """All models, and all devices that they live on."""

    rooms: Sequence[Room]
    entries: Sequence[Entry]
    trouble: str = ""  # why there is no budget although the config asks for one
    unseen: str = ""  # why nobody knows the size of the GPUs

    @property
    def known(self) -> Mapping[Device, int]:
        return {one.device: one.count_bytes for one in self.rooms if one.count_bytes is not None}

    @property
    def too_big(self) -> Sequence[Entry]:
        """Name the models that can never be loaded."""
        return [one for one in self.entries if not self.fits(one, one.demand)]

    def fits(self, entry: Entry, demand: Demand) -> bool:
        return all(count >= 0 for count in self.left(entry, demand).values())

    def left(self, entry: Entry, demand: Demand) -> Mapping[Device, int]:
        """Tell what is left of the devices when the model holds so much; less than 0: too big.

        Those that are pinned are there already: nobody makes them leave.
        """
        held = total([self.pinned_beside(entry), demand])
        return {on: count - held[on] for on, count in self.known.items() if demand.get(on)}

    def pinned_beside(self, entry: Entry) -> Demand:
        others = (one for one in self.entries if one.is_pinned and one.name != entry.name)
        return total(one.demand for one in others)


@dataclass(frozen=True, slots=True)
class Company:
    """Who can stay on one device beside whom."""

    room: Room
    pinned: Sequence[Entry]
    others: Sequence[Entry]  # of those that fit alone; the largest first

    @property
    def left_bytes(self) -> int | None:
        """Tell what the pinned ones leave; None: nobody knows."""
        if self.room.count_bytes is None:
            return None
        return self.room.count_bytes - self.bytes_of(self.pinned)

    def bytes_of(self, entries: Sequence[Entry]) -> int:
        return sum(one.demand.get(self.room.device, 0) for one in entries)

    def fit(self, entries: Sequence[Entry]) -> bool:
        return self.left_bytes is None or self.bytes_of(entries) <= self.left_bytes

    def rivals(self) -> Iterator[tuple[Entry, Sequence[Entry]]]:
        """Tell who has no room beside whom; each pair once, under the larger one."""
        for at, one in enumerate(self.others):
            rivals = [other for other in self.others[at + 1 :] if not self.fit([one, other])]
            if rivals:
                yield one, rivals

    def groups(self) -> Iterator[Sequence[Entry]]:
        """Pick as many as fit at once, then as many as fit beside each one that was left out.

        Who fits beside nobody is in no group.
        """
        left_out, first = list(self.others), list[Entry]()
        while left_out:
            group = self._around(first)
            if len(group) > 1:
                yield group
            left_out = [one for one in left_out if one not in group]
            first = left_out[:1]

    def _around(self, first: Sequence[Entry]) -> Sequence[Entry]:
        group = list(first)
        for one in reversed(self.others):  # the smallest first: so they are the most
            if one not in group and self.fit([*group, one]):
                group.append(one)
        return sorted(group, key=self.others.index)


def company(outlook: Outlook, room: Room) -> Company:
    """Sort those that live on the device."""
    held = room.device
    there = [one for one in outlook.entries if one.demand.get(held)]
    known = [one for one in there if one.source is not Source.UNKNOWN]
    too_big = {one.name for one in outlook.too_big}
    others = [one for one in known if not one.is_pinned and one.name not in too_big]
    return Company(
        room,
        pinned=[one for one in known if one.is_pinned],
        others=sorted(others, key=lambda one: one.demand[held], reverse=True),
    )
