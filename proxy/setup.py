"""A config and what follows from it: replaced as a whole when the config is."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.budget import Devices
from proxy.config import Config
from proxy.demand import Demands


@dataclass(frozen=True, slots=True)
class Setup:
    """What workers are started and counted by."""

    config: Config
    devices: Devices
    demands: Demands
