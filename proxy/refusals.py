"""The scheduler's refusals as errors that a client understands."""

from __future__ import annotations

from typing import assert_never

from proxy import errors
from proxy.budget import SEAT
from proxy.scheduler import Demand, Refusal, Refuse
from proxy.units import as_size

AGAIN_WHEN_FULL_S = 10.0


def refused(  # noqa: PLR0911  # one for each reason
    refusal: Refuse, model: str, failure: errors.StartFailed | None, needs: Demand, room: Demand
) -> errors.HotseatError:
    """Make the error.

    `failure` is the model's last failed start, if there was one; `needs` is what the request
    needs, `room` what it could have at best.
    """
    told, again_s = failure.message if failure else "it did not start", refusal.retry_after_s
    match refusal.why:
        case Refusal.START_FAILED:
            return _start_failed(model, failure, again_s)
        case Refusal.COOLING_DOWN:
            again = f"its last start failed, no new try for {again_s or 0:.1f} s: {told}"
            return errors.CoolingDown(f"{model}: {again}", retry_after_s=again_s)
        case Refusal.QUEUE_FULL:
            told = f"too many requests wait for {model} (queueLimit); ask again later"
            return errors.QueueFull(told, retry_after_s=again_s)
        case Refusal.NO_ROOM:
            return errors.NoRoom(
                f"{model} needs {amounts(needs)}; at best there is {amounts(room, of=needs)}."
                " Others use the device, or pinned models do: GET /running; or its memory is too"
                " small for this: try a smaller quant, context or picture",
                retry_after_s=AGAIN_WHEN_FULL_S,
            )
        case Refusal.UNLOADED:
            return errors.Unloaded(f"{model} was unloaded before it was ready; ask again")
        case Refusal.SHUTTING_DOWN:
            return errors.ShuttingDown("the server is shutting down", retry_after_s=5.0)
        case Refusal.UNKNOWN_MODEL:
            return errors.ModelNotFound(f"no such model: {model}", param="model")
        case _:
            assert_never(refusal.why)


def with_charge(failure: errors.StartFailed, charge: Demand, budget: Demand) -> errors.StartFailed:
    """Let the failure tell what the worker was given, where memory is counted."""
    if not has_bytes(charge):
        return failure
    given = f"it was given {amounts(charge)} of {amounts(budget)}"
    return errors.StartFailed(f"{failure.message}; {given}", reason=failure.reason)


def amounts(demand: Demand, of: Demand | None = None) -> str:
    """Write so much of each device for people; of all that `of` names."""
    each = [
        f"{as_size(demand.get(device, 0))} of {device}"
        for device in (demand if of is None else of)
        if device != SEAT
    ]
    return " and ".join(each) or "a seat"


def has_bytes(demand: Demand) -> bool:
    """Tell whether memory is counted at all, beside seats."""
    return bool(demand.keys() - {SEAT})


def _start_failed(
    model: str, failure: errors.StartFailed | None, again_s: float | None
) -> errors.HotseatError:
    if failure is None:
        told = f"{model}: it did not start"
        return errors.StartFailed(told, reason="crashed", retry_after_s=again_s)
    message = f"{model}: {failure.message}"
    if failure.reason == "out_of_memory":
        return errors.CapacityExceeded(message, retry_after_s=again_s)
    return type(failure)(message, reason=failure.reason, retry_after_s=again_s)
