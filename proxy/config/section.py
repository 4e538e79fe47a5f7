"""What all parts of the file have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

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


def both(name: str) -> AliasChoices:
    """Let a key be written as `maxBytes` or `max_bytes`; give its field the `validation_alias`.

    For keys that are not llama-swap's: those have one spelling.
    """
    return AliasChoices(to_camel(name), name)


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
        known = dict(spellings(cls))
        return {key: v for key, v in data.items() if v is not None or key not in known}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; what follows from the keys is worked out anew."""
        copy = super().model_copy(update=update, deep=deep)
        for name in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[name]
        return copy


class OwnSection(Section):
    """A part of the file that is not llama-swap's: each key may be written in both ways."""

    model_config = ConfigDict(alias_generator=AliasGenerator(to_camel, validation_alias=both))


def spellings(section: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields by each key that they may be written with, the first one first."""
    for name, field in section.model_fields.items():
        match field.validation_alias:
            case AliasChoices(choices=choices):
                yield from ((str(key), field) for key in choices)
            case _:
                yield field.alias or name, field
