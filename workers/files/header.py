"""What the head of a file of weights says, whichever its format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MAX_DIMENSIONS = 8

Shape = tuple[int, ...]
"""In torch's order: a linear layer is (outputs, inputs)."""

Value = str | int | float | bool | tuple[int | float | bool, ...] | None


class BadFile(Exception):
    """The file cannot be used as it is; the message says why and what to do, after its name."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a file of weights before it is loaded."""

    shapes: Mapping[str, Shape]  # by the tensor's name
    keys: Mapping[str, Value] = field(default_factory=dict)  # GGUF's; None: an array stepped over
    data_end: int = 0  # bytes the file must have for all its tensors to be there
    unsized: tuple[str, ...] = ()  # tensors of unknown types: `data_end` may be too low for them
    types: Mapping[str, str] = field(default_factory=dict)  # by the tensor's name; see `types`

    def has(self, part: str) -> bool:
        """Tell whether any tensor's name contains `part`."""
        return any(part in name for name in self.shapes)

    def shape(self, suffix: str) -> Shape | None:
        """Give the shape of the tensor whose name is, or ends in a dot and, `suffix`."""
        return next(
            (s for n, s in self.shapes.items() if n == suffix or n.endswith("." + suffix)), None
        )

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Value:
        """Look up a key in the architecture's own name space, such as `llama.context_length`."""
        return self.keys.get(f"{self.architecture}.{key}")

    def number(self, key: str) -> int:
        """Look up an architecture's whole number; 0 when there is none."""
        value = self.of_architecture(key)
        return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as a head tells it."""

    name: str
    shape: Shape
    end: int  # counted from where the data begin
    type: str | None  # None: unknown, so `end` may be too low


def count(shape: Shape) -> int:
    """Count the values of a tensor."""
    return math.prod(shape)


def of_tensors(
    tensors: Sequence[Tensor], data_start: int, keys: Mapping[str, Value] | None = None
) -> Header:
    return Header(
        {tensor.name: tensor.shape for tensor in tensors},
        keys or {},
        max((data_start + tensor.end for tensor in tensors), default=0),
        tuple(tensor.name for tensor in tensors if tensor.type is None),
        {tensor.name: tensor.type for tensor in tensors if tensor.type is not None},
    )
