"""The scheduler's refusals as errors that a client understands."""

from __future__ import annotations

from typing import assert_never

from proxy import errors
from proxy.scheduler import Refusal


def refused(
    why: Refusal, model: str, failure: errors.StartFailed | None, retry_after_s: float | None
) -> errors.HotseatError:
    """Make the error; `failure` is the model's last failed start, if there was one."""
    told = failure.message if failure else "it did not start"
    match why:
        case Refusal.START_FAILED:
            kind = type(failure) if failure else errors.StartFailed
            reason = failure.reason if failure else "crashed"
            return kind(f"{model}: {told}", reason=reason, retry_after_s=retry_after_s)
        case Refusal.COOLING_DOWN:
            again = f"its last start failed, no new try for {retry_after_s or 0:.1f} s: {told}"
            return errors.CoolingDown(f"{model}: {again}", retry_after_s=retry_after_s)
        case Refusal.QUEUE_FULL:
            told = f"too many requests wait for {model} (queueLimit); ask again later"
            return errors.QueueFull(told, retry_after_s=retry_after_s)
        case Refusal.NEVER_FITS:
            told = f"{model} needs more memory than there is beside the pinned models"
            return errors.NeverFits(told)
        case Refusal.SHUTTING_DOWN:
            return errors.ShuttingDown("the server is shutting down", retry_after_s=5.0)
        case Refusal.UNKNOWN_MODEL:
            return errors.ModelNotFound(f"no such model: {model}", param="model")
        case _:
            assert_never(why)
