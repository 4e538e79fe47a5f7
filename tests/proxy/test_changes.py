"""Which keys of a model are its process's: a new one must be put on one side or the other."""

from __future__ import annotations

from proxy.config import ModelConfig
from proxy.reload.changes import EXPANDED, RUNNING

SEEN_BY_THE_PROCESS_OTHERWISE = {"device", "gpu"}  # by the GPUs that it is shown
OURS = {
    "aliases", "capabilities", "compat", "concurrency_limit", "description", "filters",
    "health_check_timeout", "memory", "metadata", "name", "patience", "pin", "priority",
    "queue_limit", "send_loading_state", "timeouts", "ttl", "unlisted", "unload_timeout",
    "safety", "use_model_name", "vision_fallback",
}  # fmt: skip


def test_each_key_of_a_model_is_known_to_be_its_process_s_or_ours() -> None:
    """Nobody adds a key that a living worker would need, and that a reload takes for ours."""
    known = RUNNING | EXPANDED | SEEN_BY_THE_PROCESS_OTHERWISE | OURS

    assert set(ModelConfig.model_fields) == known
