"""The sections above the models that are about serving: hooks, upstream, pages, figures, keys."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import Annotated, Literal, NewType, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr

from proxy.config.section import Priority, Seconds, Section

IGNORED_PATHS = r"\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$"
"""What a browser asks for by itself, which is no reason to load a model."""
SHORTEST_LOOK_S = 5.0
caseless = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
LogOutput = Literal["proxy", "upstream", "both", "none"]
LogTimeFormat: TypeAlias = Annotated[
    Literal[
        "",
        "ansic",
        "unixdate",
        "rubydate",
        "rfc822",
        "rfc822z",
        "rfc850",
        "rfc1123",
        "rfc1123z",
        "rfc3339",
        "rfc3339nano",
        "kitchen",
        "stamp",
        "stampmilli",
        "stampmicro",
        "stampnano",
    ],
    caseless,
]


_AT_THE_START = re.compile(r"\A\.\*(?![?+*{])")
"""Changes nothing where a pattern is searched for, but costs the square of a path's length."""


def _pattern(value: object) -> re.Pattern[str]:
    """Compile; what Python reads otherwise than RE2 does is refused where it warns of it."""
    if not isinstance(value, str):
        raise ValueError("must be a regular expression")  # noqa: TRY004  # pydantic's
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return re.compile(_AT_THE_START.sub("", value))
        except (re.error, Warning, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression of Python: {error}") from None


def _or_standard(patterns: tuple[re.Pattern[str], ...]) -> tuple[re.Pattern[str], ...]:
    return patterns or (re.compile(IGNORED_PATHS),)


Pattern: TypeAlias = Annotated[re.Pattern[str], PlainValidator(_pattern)]


def _seldom(seconds: float) -> float:
    if seconds < SHORTEST_LOOK_S:
        raise ValueError(f"every must be at least {SHORTEST_LOOK_S:g}s")
    return seconds


class Upstream(Section):
    """The section `upstream`."""

    ignore_paths: Annotated[tuple[Pattern, ...], AfterValidator(_or_standard)] = Field(
        default=(), validate_default=True
    )
    """An empty list is the standard one again."""


class OnStartup(Section):
    """What is done at the start."""

    preload: tuple[str, ...] = ()


class Hooks(Section):
    """The section `hooks`."""

    on_startup: OnStartup = Field(default=OnStartup(), alias="on_startup")


class Activity(Section):
    """Which headers name a session, the first one counts."""

    session_id: tuple[str, ...] = Field(
        default=("X-Session-ID", "X-Litellm-Session-Id"), alias="session_id"
    )


class Ui(Section):
    """The section `ui`."""

    activity: Activity = Activity()


class Performance(Section):
    """The section `performance`: how often the machine is looked at for its figures."""

    disabled: bool = False
    every: Annotated[Seconds, AfterValidator(_seldom)] = 5.0


class Store(Section):
    """The section `store`, which is not needed here."""

    path: Annotated[str, Field(min_length=1)] | None = None


def _footprints(value: object) -> Path | Literal[False] | None:
    if value is None or value is False:
        return value
    if isinstance(value, str) and value:
        return Path(value)
    raise ValueError("must be a path, or false")


def _prefix(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must begin with a slash, such as /v2")
    return path


Footprints: TypeAlias = Annotated[Path | Literal[False] | None, PlainValidator(_footprints)]
PathPrefix: TypeAlias = Annotated[str, AfterValidator(_prefix)]


def _is_one_word(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text:
        raise ValueError("the key is empty")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError("the key holds a space")
    return key


Owner = NewType("Owner", str)


class ApiKey(Section):
    """A key, whose it is, and how urgent their requests are."""

    key: Annotated[SecretStr, AfterValidator(_is_one_word)]
    name: str = ""
    priority: Priority | None = None

    @property
    def owner(self) -> Owner:
        """Name who holds it, and do not tell it: SHA-256 in hex."""
        return Owner(hashlib.sha256(self.key.get_secret_value().encode()).hexdigest())


def _entry(value: object) -> object:
    """Take a bare key; never repeat what is wrong, as it may be the secret."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return {"key": str(value)}
    if isinstance(value, dict) and set(value) <= set(ApiKey.model_fields):
        return value
    raise ValueError("an entry is the key as a text, or has key, name and priority")


KeyEntry: TypeAlias = Annotated[ApiKey, BeforeValidator(_entry)]
