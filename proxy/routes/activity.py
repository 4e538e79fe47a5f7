"""What was asked and what came of it: the last requests, and what they add up to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from aiohttp import web

from proxy.routes.asked import Asked
from proxy.routes.feed import Feed
from proxy.routes.inflight import moment
from proxy.tokens import Tokens

KIND = "activity"
BINS = 20


@dataclass(frozen=True, slots=True)
class Act:
    """A request that has ended."""

    id: int
    at: float  # when it began, by the wall clock
    model: str
    path: str
    content_type: str
    status: int
    tokens: Tokens
    duration_ms: int
    why: str  # it failed; empty: it did not
    metadata: Mapping[str, str]

    def as_json(self) -> Mapping[str, object]:
        tokens = self.tokens
        return {
            "id": self.id,
            "timestamp": moment(self.at),
            "model": self.model,
            "req_path": self.path,
            "resp_content_type": self.content_type,
            "resp_status_code": self.status,
            "tokens": {
                "cache_tokens": tokens.cached,
                "draft_tokens": tokens.drafted,
                "draft_acc_tokens": tokens.draft_accepted,
                "input_tokens": tokens.prompt,
                "output_tokens": tokens.generated,
                "prompt_per_second": tokens.prompt_per_s,
                "tokens_per_second": tokens.generated_per_s,
            },
            "duration_ms": self.duration_ms,
            "has_capture": False,
            **({"error_msg": self.why} if self.why else {}),
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
        }


class Activity:
    """The last requests, oldest first."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._acts: deque[Act] = deque()

    def __iter__(self) -> Iterator[Act]:
        return iter(self._acts)

    def add(self, act: Act, most: int) -> None:
        """Take note of one, and keep no more than `most`."""
        self._acts.append(act)
        while len(self._acts) > most:
            self._acts.popleft()
        if self._feed.is_heard:
            self._feed.tell(KIND, {"id": act.id})


ACTIVITY = web.AppKey("activity", Activity)

SORTED_BY = {
    "id": lambda act: act.id,
    "time": lambda act: act.at,
    "model": lambda act: act.model,
    "req_path": lambda act: act.path,
    "resp_status_code": lambda act: act.status,
    "resp_content_type": lambda act: act.content_type,
    "cached": lambda act: act.tokens.cached,
    "prompt": lambda act: act.tokens.prompt,
    "generated": lambda act: act.tokens.generated,
    "drafted": lambda act: act.tokens.drafted,
    "prompt_speed": lambda act: act.tokens.prompt_per_s,
    "gen_speed": lambda act: act.tokens.generated_per_s,
    "duration": lambda act: act.duration_ms,
}


async def list_activity(request: web.Request) -> web.Response:
    """Answer GET /api/metrics/activity, page by page."""
    asked = Asked.of(request.query, tuple(SORTED_BY))
    found = [act for act in request.app[ACTIVITY] if asked.is_met(act.id, act.model, act.at)]
    found.sort(key=SORTED_BY[asked.sort], reverse=asked.is_descending)
    first = (asked.page - 1) * asked.limit
    return web.json_response(
        {
            "data": [act.as_json() for act in islice(found, first, first + asked.limit)],
            "page": asked.page,
            "limit": asked.limit,
            "total": len(found),
            "total_pages": math.ceil(len(found) / asked.limit),
        }
    )


async def tell_stats(request: web.Request) -> web.Response:
    """Answer GET /api/metrics/stats: sums over what is kept, of one model or of all."""
    models = request.query.getall("model", [])
    acts = [act for act in request.app[ACTIVITY] if not models or act.model in models]
    return web.json_response(
        {
            "total_requests": len(acts),
            "total_input_tokens": sum(act.tokens.prompt for act in acts),
            "total_output_tokens": sum(act.tokens.generated for act in acts),
            "total_cache_tokens": sum(max(0, act.tokens.cached) for act in acts),
            "prompt_histogram": histogram([act.tokens.prompt_per_s for act in acts]),
            "gen_histogram": histogram([act.tokens.generated_per_s for act in acts]),
        }
    )


def histogram(speeds: Sequence[float]) -> Mapping[str, object] | None:
    """Count speeds in bins of one size; None: nobody has told any."""
    known = sorted(speed for speed in speeds if speed > 0)
    if not known:
        return None
    least, most = known[0], known[-1]
    size = (most - least) / BINS
    bins = [0] * BINS
    for speed in known:
        bins[min(BINS - 1, int((speed - least) / size)) if size else 0] += 1
    return {
        "bins": bins,
        "min": least,
        "max": most,
        "binSize": size,
        **{f"p{part}": _percentile(known, part) for part in (50, 95, 99)},
    }


def _percentile(known: Sequence[float], part: int) -> float:
    """Give the least one that is no less than so many percent of them."""
    return known[max(0, math.ceil(len(known) * part / 100) - 1)]
