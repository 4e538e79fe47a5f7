"""What the types of the keys have against a file, in our words."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config.document import Problem, Where
from proxy.config.likeness import alike
from proxy.config.model import KINDS, NO_KIND, ModelConfig
from proxy.config.schema import Config
from proxy.config.section import LONG, SHORT, Section, spellings

NO_PLACES = (SHORT, LONG, "[key]")
"""What pydantic puts into a mistake's path that is no key of the file."""
TEXTS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "string_type": "must be one text; true and false need quotes",
    "string_too_short": "is empty",
}
PASSING_TYPES = ("extra_forbidden", "no_kind")
PASSING_KEYS: tuple[Where, ...] = (("logLevel",), ("logTimeFormat",))
"""Where llama-swap takes any value, and does as if there were none."""


NOTHING_TO_RUN = f"names nothing to run; {NO_KIND}"


def problems_of(error: ValidationError, data: Mapping[object, object]) -> Iterator[Problem]:
    for model_id in _idle(data.get("models")):
        yield Problem(("models", model_id), NOTHING_TO_RUN, passes=True)
    for entry in error.errors(include_url=False, include_input=False):
        where = tuple(str(part) for part in entry["loc"] if part not in NO_PLACES)
        passes = entry["type"] in PASSING_TYPES or where in PASSING_KEYS
        yield Problem(where, _told(entry, where), passes=passes)


def _idle(models: object) -> Iterator[str]:
    """Name the models that say nothing to run, whatever else is wrong with them."""
    for model_id, entry in models.items() if isinstance(models, dict) else ():
        said = entry if isinstance(entry, dict) else {}
        if isinstance(entry, dict | None) and all(said.get(one) in (None, "") for one in KINDS):
            yield str(model_id)


def _told(entry: ErrorDetails, where: Where) -> str:
    message = TEXTS.get(entry["type"], entry["msg"].removeprefix("Value error, "))
    message = message.replace("Input should be", "must be", 1)
    hint = _hint(where) if entry["type"] == "extra_forbidden" else ""
    return message + hint


def _hint(where: Where) -> str:
    """Say what was meant, or where the key belongs, or else what there is."""
    section, key = _section(where), where[-1]
    known = _keys(section)
    if key.casefold() not in {name.casefold() for name in known}:
        if section is ModelConfig and key in _keys(Config):
            return "; it is a key of the whole file, not of a model"
        if section is Config and key in _keys(ModelConfig):
            return "; it is a key of a model, not of the whole file"
    if near := alike(key, known):
        return f"; did you mean {near[0]}?"
    return f"; known are: {', '.join(known)}"


def _keys(section: type[Section]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _section(where: Where) -> type[Section]:
    """Tell which section the key stands in."""
    here: Any = Config
    for part in where[:-1]:
        here = _inside(here, part)
    return next((one for one in _forms(here) if _is_section(one)), Config)


def _inside(annotation: Any, part: str) -> Any:
    for form in _forms(annotation):
        if _is_section(form):
            field = dict(spellings(form)).get(part)
            if field is not None:
                return field.annotation
        elif get_origin(form) in (dict, Mapping):
            return get_args(form)[1]
        elif get_origin(form) is tuple:
            return get_args(form)[0]
    return None


def _forms(annotation: Any) -> Iterator[Any]:
    """Yield each type that a value may have."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _forms(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _forms(one)
    else:
        yield annotation


def _is_section(form: Any) -> bool:
    return isinstance(form, type) and issubclass(form, Section)
