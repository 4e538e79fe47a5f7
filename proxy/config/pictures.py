"""The sections `files` and `fetchImages`: pictures that are kept, and those from elsewhere."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, NonNegativeInt, PlainValidator

from proxy.config.memory import Size
from proxy.config.section import OwnSection, Seconds

MOST_REDIRECTS = 20
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*\.?", re.ASCII)


def _folder(value: object) -> Path:
    if isinstance(value, str | Path) and str(value):
        return Path(value)
    raise ValueError("must be a path")


class FilesConfig(OwnSection):
    """The section `files`: bounds of the pictures that are kept, and where they lie."""

    max_bytes: Annotated[Size, Field(gt=0)] = 1 << 30
    max_file_bytes: Annotated[Size, Field(gt=0)] = 50 << 20
    ttl: Seconds = 24 * 3600.0  # since the last use; 0: for ever
    dir: Annotated[Path, PlainValidator(_folder)] | None = None
    remember: bool = False


def _allowed(value: object) -> IPv4Network | IPv6Network | str:
    """Take a host's name, an address, or a network of them."""
    told = str(value).strip() if isinstance(value, str | IPv4Network | IPv6Network) else ""
    try:
        return ip_network(told.strip("[]"), strict=False)
    except ValueError:
        name = told.rstrip(".").lower()
    if not _HOST.fullmatch(name) or name.rpartition(".")[2].isdecimal():
        raise ValueError("must be the name of a host, an address, or a network such as 10.0.0.0/8")
    return name


Allowed: TypeAlias = Annotated[IPv4Network | IPv6Network | str, PlainValidator(_allowed)]


class FetchImages(OwnSection):
    """The section `fetchImages`: how pictures that requests only name are fetched."""

    allow: tuple[Allowed, ...] = ()
    max_bytes: Annotated[Size, Field(gt=0)] = 20 << 20
    timeout: Annotated[Seconds, Field(gt=0)] = 10.0
    redirects: Annotated[NonNegativeInt, Field(le=MOST_REDIRECTS)] = 3


def _fetching(value: object) -> object:
    """Take true as the section with nothing in it, false as none."""
    if isinstance(value, bool):
        return {} if value else None
    return value


FetchingImages: TypeAlias = Annotated[FetchImages | None, BeforeValidator(_fetching)]
