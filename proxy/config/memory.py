"""How much memory there is to be had, where, and what a model says that it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, PlainValidator, Tag, model_validator

from proxy.config.section import LONG, SHORT, Section, by_form
from proxy.units import size_bytes

DeviceKind: TypeAlias = Literal["gpu", "cpu"]
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]+")


@dataclass(frozen=True, slots=True)
class Share:
    """A part of what a device has in all."""

    percent: float

    def of(self, total_bytes: int) -> int:
        return int(total_bytes * self.percent / 100)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('must be a size such as "12.9GiB"')  # noqa: TRY004  # pydantic's
    return size_bytes(value)


def _limit(value: object) -> int | Share | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and (share := _SHARE.fullmatch(value.strip())):
        percent = float(share[1])
        if not 0 < percent <= 100:  # noqa: PLR2004
            raise ValueError("a share is more than 0% and at most 100%")
        return Share(percent)
    try:
        limit_bytes = _size(value)
    except ValueError:
        told = 'must be auto, a size such as "22GiB" or a share such as "90%"'
        raise ValueError(told) from None
    if limit_bytes <= 0:
        raise ValueError("must be more than nothing; leave the key out for no budget")
    return limit_bytes


def _gpu(value: object) -> int | str:
    text = str(value)
    if not isinstance(value, bool) and text.isascii() and text.isdecimal():
        return int(text)
    if _UUID.fullmatch(text):
        return text
    raise ValueError("a GPU is named by its index (0) or its UUID (GPU-…), see nvidia-smi -L")


def _each_once(gpus: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if not gpus:
        raise ValueError("names no GPU; leave the key out for the default")
    if len(set(gpus)) < len(gpus):
        raise ValueError("names a GPU twice")
    return gpus


Size: TypeAlias = Annotated[int, PlainValidator(_size)]
Limit: TypeAlias = Annotated[int | Share | Literal["auto"], PlainValidator(_limit)]
"""Bytes, a share of the device, or what is free there."""
Gpu: TypeAlias = Annotated[int | str, PlainValidator(_gpu)]
"""An index, in the driver's order, or a UUID."""
Gpus: TypeAlias = Annotated[tuple[Gpu, ...], AfterValidator(_each_once)]


class GpuConfig(Section):
    """The section `gpu`."""

    memory: (
        Annotated[
            Annotated[Limit, Tag(SHORT)] | Annotated[dict[Gpu, Limit], Tag(LONG)],
            by_form,
        ]
        | None
    ) = None
    reserve: Size = 0
    devices: Gpus | None = None
    yields: bool = Field(default=False, alias="yield")

    def limit(self, index: int, uuid: str) -> int | Share | Literal["auto"] | None:
        """Tell the budget of one GPU; None: it has none."""
        if isinstance(self.memory, dict):
            return self.memory.get(uuid, self.memory.get(index))
        return self.memory


class HostConfig(Section):
    """The section `host`."""

    memory: Limit | None = None
    reserve: Size = 0


class DeclaredMemory(Section):
    """What a model says that it needs; None: it does not say."""

    gpu: Size | None = None
    host: Size | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.gpu is None and self.host is None:
            raise ValueError("says neither gpu nor host")
        return self


Declaration: TypeAlias = Annotated[
    Annotated[Size, Tag(SHORT)] | Annotated[DeclaredMemory, Tag(LONG)], by_form
]
"""A size on the model's own device, or one for each kind of memory."""
