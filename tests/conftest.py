"""What all tests share: where the tiny models lie, and Hypothesis profiles."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.nvml import device

settings.register_profile(
    "fast",
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", settings.get_profile("fast"), max_examples=20_000)
# a shell ignores it for what runs in the background, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test's proxy learns from the next one, and from the user's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def models() -> Path:
    """Give the folder that `scripts/make_tiny_models.py` fills."""
    folder = Path(os.environ.get("HOTSEAT_MODELS", Path.home() / ".cache/hotseat/models"))
    if not folder.is_dir():
        pytest.fail(f"no tiny models in {folder}: run scripts/make_tiny_models.py first")
    return folder


scripted_library = device.scripted_library
scripted_nvml = device.scripted_nvml
