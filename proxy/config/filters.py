"""What is changed in the body of a request before its worker sees it."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.config.section import Section

PROTECTED = "model"
"""No filter takes this field out or sets it."""


def _names(value: object) -> object:
    """Take `a, b` as a list of the two."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name != PROTECTED}))


def _unprotected(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != PROTECTED}


Names: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_in_order), BeforeValidator(_names)]
Params: TypeAlias = Annotated[dict[str, Any], AfterValidator(_unprotected)]


class Filters(Section):
    """The section `filters` of a model; a dot in a parameter's name means nesting."""

    strip_params: Names = ()
    set_params: Params = Field(default_factory=dict)
    set_params_by_id: dict[str, Params] = Field(default_factory=dict, alias="setParamsByID")

    @model_validator(mode="before")
    @classmethod
    def _old_spelling(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "strip_params" not in data:
            return data
        if "stripParams" in data:
            raise ValueError("says strip_params and stripParams, which are the same; keep one")
        return {
            "stripParams" if key == "strip_params" else key: value for key, value in data.items()
        }
