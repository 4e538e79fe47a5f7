"""Fixtures of the proxy's tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.proxy.served import Gate


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Make gates for echo workers."""
    numbers, made = itertools.count(), list[Gate]()

    def make() -> Gate:
        made.append(Gate(tmp_path / f"gate-{next(numbers)}"))
        return made[-1]

    yield make
    for one in made:
        one.dismantle()
