"""What all parts of the file have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field
from pydantic.alias_generators import to_camel

SHORT, LONG = "<short>", "<long>"
"""Tags of what may be written as one value or as a mapping; a mistake's path leaves them out."""

by_form = Discriminator(lambda value: LONG if isinstance(value, dict | BaseModel) else SHORT)
Priority = Annotated[int, Field(ge=-10, le=10)]


class Section(BaseModel):
    """A part of the file: keys in camelCase as llama-swap's, unknown ones refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, protected_namespaces=()
    )
