"""What all parts of the file have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, model_validator
from pydantic.alias_generators import to_camel

from proxy.units import duration_s

SHORT, LONG = "<short>", "<long>"
"""Tags of what may be written as one value or as a mapping; a mistake's path leaves them out."""

by_form = Discriminator(lambda value: LONG if isinstance(value, dict | BaseModel) else SHORT)
PRIORITY_MOST = 10
Priority = Annotated[int, Field(ge=-PRIORITY_MOST, le=PRIORITY_MOST)]


def _seconds(value: object) -> object:
    """Take a duration such as 5m as its seconds."""
    if not isinstance(value, str):
        return value
    try:
        seconds = duration_s(value)
    except ValueError:
        seconds = math.inf
    if math.isinf(seconds):
        raise ValueError("must be seconds, or read like 30s, 5m or 1h30m")
    return seconds


def zero_is_unsaid(value: object) -> object:
    """Take 0 as if the key were not there."""
    is_zero = value == 0 and not isinstance(value, bool)
    return None if is_zero else value


def empty_is_unsaid(value: object) -> object:
    """Take an empty text as if the key were not there."""
    return None if value == "" else value


Seconds: TypeAlias = Annotated[
    float, Field(ge=0, allow_inf_nan=False, strict=True), BeforeValidator(_seconds)
]
"""Seconds, or a duration such as 5m."""
Name: TypeAlias = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the file: keys in camelCase as llama-swap's, unknown ones refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        protected_namespaces=(),
        coerce_numbers_to_str=True,  # `name: 7` is a name
    )

    @model_validator(mode="before")
    @classmethod
    def _without_the_unsaid(cls, data: Any) -> Any:
        """Take a key with nothing behind it as if it were not there, and an empty entry as one."""
        if data is None:
            return {}
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: v for key, v in data.items() if v is not None or key not in known}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; what follows from the keys is worked out anew."""
        copy = super().model_copy(update=update, deep=deep)
        for name in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[name]
        return copy
