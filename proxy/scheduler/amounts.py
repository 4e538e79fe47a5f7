"""Sums of demands: what several devices are asked for, and what they have left."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.scheduler.types import Demand, Device


def total(demands: Iterable[Demand]) -> dict[Device, int]:
    """Add up, device by device."""
    out: dict[Device, int] = {}
    for demand in demands:
        for device, amount in demand.items():
            out[device] = out.get(device, 0) + amount
    return out


def fits(demand: Demand, there: Demand) -> bool:
    """Tell whether nothing is missing."""
    for device, amount in demand.items():
        if amount > 0 and amount > there.get(device, 0):
            return False
    return True


def missing(demand: Demand, there: Demand) -> dict[Device, int]:
    """Tell what of the demand is not there; empty when it fits."""
    return {
        device: amount - there.get(device, 0)
        for device, amount in demand.items()
        if amount > max(there.get(device, 0), 0)
    }


def larger(one: Demand, other: Demand) -> Demand:
    """Take the larger amount of each device."""
    if not other:
        return one
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in {**one, **other}}
