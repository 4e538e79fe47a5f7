"""What a reader asks of a list: which of it, in which order, which page. PURE."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from multidict import MultiMapping

from proxy.errors import BadRequest

LIMIT, MOST = 25, 999


@dataclass(frozen=True, slots=True)
class Asked:
    """The query of a list of requests."""

    models: Collection[str]
    start: datetime | None
    end: datetime | None
    min_id: int | None
    max_id: int | None
    limit: int
    page: int
    sort: str
    is_descending: bool

    @classmethod
    def of(cls, query: MultiMapping[str], columns: Collection[str]) -> Asked:
        """Read a query. Raises BadRequest, which names the part that will not do."""
        asked = cls(
            frozenset(query.getall("model", [])),
            moment(query, "start"),
            moment(query, "end"),
            _id(query, "min_id"),
            _id(query, "max_id"),
            _limit(query),
            _number(query, "page", 1),
            query.get("sort") or "id",
            _is_descending(query.get("order") or "desc"),
        )
        if asked.sort not in columns:
            raise _bad("sort", f"invalid sort column; there are {', '.join(columns)}")
        if asked.page < 1:
            raise _bad("page", "page must be >= 1")
        if asked.start and asked.end and asked.start >= asked.end:
            raise _bad("start", "start must be before end")
        if asked.min_id and asked.max_id and asked.min_id > asked.max_id:
            raise _bad("min_id", "min_id must be <= max_id")
        return asked

    def is_met(self, number: int, model: str, at: float) -> bool:
        return (
            (not self.models or model in self.models)
            and (self.start is None or at >= self.start.timestamp())
            and (self.end is None or at <= self.end.timestamp())
            and (self.min_id is None or number >= self.min_id)
            and (self.max_id is None or number <= self.max_id)
        )


def moment(query: MultiMapping[str], name: str) -> datetime | None:
    """Read a time with its zone (RFC 3339). Raises BadRequest."""
    text = query.get(name)
    if not text:
        return None
    told = f"invalid '{name}' timestamp, use RFC3339 format"
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # `+` in a query that is not escaped
    except ValueError:
        raise _bad(name, told) from None
    if at.tzinfo is None or "T" not in text.upper():
        raise _bad(name, told)
    return at


def _id(query: MultiMapping[str], name: str) -> int | None:
    if not query.get(name):
        return None
    number = _number(query, name, 0)
    if number < 1:
        raise _bad(name, f"{name} must be >= 1")
    return number


def _limit(query: MultiMapping[str]) -> int:
    limit = _number(query, "limit", LIMIT)
    if not 1 <= limit <= MOST:
        raise _bad("limit", f"limit must be between 1 and {MOST}")
    return limit


def _number(query: MultiMapping[str], name: str, otherwise: int) -> int:
    text = query.get(name)
    if not text:
        return otherwise
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):  # noqa: PLR2004  # 2^63
        raise _bad(name, f"invalid {name}")
    return int(text)


def _is_descending(order: str) -> bool:
    if order not in ("asc", "desc"):
        raise _bad("order", "order must be asc or desc")
    return order == "desc"


def _bad(name: str, told: str) -> BadRequest:
    return BadRequest(told, param=name, code="invalid_value")
