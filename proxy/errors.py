"""Every way a request can fail: the class is the cause, its attributes are the HTTP face.

The body is always OpenAI's ``{"error": {"message", "type", "param", "code"}}`` as JSON, whatever
`Accept` says. A client's mistake is a 4xx, never a 422 or 5xx: SDKs retry those, and each retry
would be another job for the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar


class HotseatError(Exception):
    """A failed request; the message says what to do next."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    is_final: ClassVar[bool] = False  # SDKs would try twice more by themselves: two more GPU jobs

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.told_code = code or self.code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, object]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.told_code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        headers = {"x-should-retry": "false"} if self.is_final else {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return headers


class BadRequest(HotseatError):
    """The client's mistake, in the body or in what it asks of this model."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ModelCannot(BadRequest):
    """The model is not made for this; `alternatives` are those that are, the ready ones first."""

    code = "model_cannot"

    def __init__(self, message: str, *, alternatives: Sequence[str], code: str) -> None:
        super().__init__(message, param="model", code=code)
        self.alternatives = alternatives

    @property
    def body(self) -> dict[str, object]:
        told = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.told_code,
            "alternatives": [*self.alternatives],
        }
        return {"error": told}


class SafetyRefused(BadRequest):
    """A rule of `safety`; the message names its label, and never repeats what was sent."""

    code = "safety_filter"


class SafetyUnknown(HotseatError):
    """Who has to judge could not, so nothing is begun, or nothing leaves."""

    status = 503
    code = "safety_check_failed"
    is_final = True


class Unauthorized(HotseatError):
    """No key of `apiKeys`, or none at all; the message never repeats what was sent."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        # RFC 9110 §11.6.1 asks for it; browsers ask for a password only where `Basic` is named
        return {"WWW-Authenticate": 'Basic realm="hotseat", Bearer'}


class NotFound(HotseatError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(HotseatError):
    """The path exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class ModelNotFound(HotseatError):
    """LiteLLM and openai-python tell this one by its type and code: keep both."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class BodyTooLarge(HotseatError):
    """More bytes than `maxBodyBytes`."""

    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class BodyStalled(HotseatError):
    """The client stopped sending in the middle."""

    status = 408
    type = "invalid_request_error"
    code = "body_stalled"


class QueueFull(HotseatError):
    """Too many wait for this model already."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class StartFailed(HotseatError):
    """The worker did not become ready; `reason` as in the worker contract."""

    status = 502
    code = "worker_start_failed"
    is_final = True

    def __init__(self, message: str, *, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = reason


class StartTimeout(StartFailed):
    """The worker was not ready in time."""

    status = 504
    code = "worker_start_timeout"


class WorkerDied(HotseatError):
    """The worker went away with the request in its hands."""

    status = 502
    code = "worker_died"
    is_final = True


class PeerFailed(HotseatError):
    """Another server that should have answered did not; the message names it."""

    status = 502
    code = "peer_failed"
    is_final = True


class AsideFailed(HotseatError):
    """A model that had to be asked on the way could not answer; the message names it."""

    status = 502
    code = "aside_failed"
    is_final = True


class AnswerLate(HotseatError):
    """Who was asked has not begun to answer in time (`timeouts.responseHeader`)."""

    status = 504
    code = "answer_late"
    is_final = True


class WorkerRefused(HotseatError):
    """The worker's own error, for an answer whose head is out already."""

    def __init__(self, message: str, status: int, error: Mapping[str, object]) -> None:
        super().__init__(message)
        self.status = status  # the log and the activity tell what the worker said
        self._error = error

    @property
    def body(self) -> dict[str, object]:
        return {"error": dict(self._error)}


class CoolingDown(HotseatError):
    """The last start failed a moment ago."""

    status = 503
    code = "cooling_down"


class NoRoom(HotseatError):
    """More memory than can be had now, whoever of ours leaves."""

    status = 503
    code = "no_room"


class CapacityExceeded(HotseatError):
    """There is memory enough for this, but not for as long as others hold it."""

    status = 503
    code = "capacity_exceeded"


class Unloaded(HotseatError):
    """Somebody had the model unloaded before it had answered, or had begun to."""

    status = 503
    code = "unloaded"
    is_final = True


class ShuttingDown(HotseatError):
    """The proxy is about to leave."""

    status = 503
    code = "shutting_down"


class DeadlineExceeded(HotseatError):
    """The time that the request gave itself was over before its turn came."""

    status = 504
    code = "deadline_exceeded"
    is_final = True


class Cancelled(HotseatError):
    """Somebody has ended the request from outside; no SDK tries this status again."""

    status = 499
    type = "invalid_request_error"
    code = "cancelled"


class NotReady(HotseatError):
    """The model is not loaded, and this request must not load it."""

    status = 409
    type = "invalid_request_error"
    code = "model_not_ready"


class NotKept(HotseatError):
    """The disk does not take what should be kept; the message says why."""

    status = 507
    code = "not_kept"
    is_final = True


class Unavailable(HotseatError):
    """What is asked for cannot be told here and now."""

    status = 503
    code = "service_unavailable"
