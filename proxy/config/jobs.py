"""The section `jobs`: how many may wait without their clients, and how much is kept of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from proxy.config.memory import Size
from proxy.config.section import OwnSection, Seconds


class JobsConfig(OwnSection):
    """Bounds of jobs, and of the answers and pictures that they leave."""

    keep: Annotated[Seconds, Field(gt=0)] = 3600.0
    max_bytes: Annotated[Size, Field(gt=0)] = 1 << 30  # temporary directories often lie in RAM
    max_pending: PositiveInt = 100  # each holds a body, and a place in a queue
