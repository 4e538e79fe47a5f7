"""A Hotseat with a painter, for one client's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.proxy.painted import PAINTER
from tests.proxy.served import Hotseat, served

CONFIG = (
    PAINTER
    + """
models:
  talker: {{llama: {{model: nowhere.gguf}}}}
  painter:
    aliases: [gpt-image-1]
    sd:
      <<: *painter
      lora_dir: {models}/image/loras
      defaults: {{width: 64, height: 64, steps: 2}}
  describer: {{florence2: {{model: nowhere}}}}
"""
)
"""Of these only the painter is ever loaded."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hotseat]:
    """Serve one proxy for all tests of a module."""
    folder = tmp_path_factory.mktemp("client")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin
        async with served(CONFIG.format(models=models), folder) as one:
            yield one
