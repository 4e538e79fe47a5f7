"""What the tests of the workers share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.workers import launch
from tests.workers.llama_talk import OPTIONS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(models: Path) -> AsyncIterator[launch.Launched]:
    """Serve the tiny chat model; modules about another model have a `worker` of their own."""
    options = OPTIONS | {"model": str(models / "chat.gguf")}
    async with launch.launched("llama", options) as ready:
        yield ready
