"""What a context will need, from the head of the file alone, and what the host has."""

from __future__ import annotations

from pathlib import Path

from workers.files import Header

BYTES_PER_VALUE = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
FEWEST_FULL_LAYERS = 6  # with a sliding window, one layer in six or more sees the whole context


def kv_cache_bytes(header: Header, n_ctx: int, type_k: str, type_v: str) -> int:
    """Reckon the least that the KV cache of `n_ctx` tokens takes; 0 where it cannot be told."""
    layers, heads = header.number("block_count"), header.number("attention.head_count")
    if not layers or not heads:
        return 0
    head_length = header.number("embedding_length") // heads
    key_length = header.number("attention.key_length") or head_length
    value_length = header.number("attention.value_length") or head_length
    kv_heads = header.of_architecture("attention.head_count_kv") or heads
    total_heads = sum(kv_heads) if isinstance(kv_heads, tuple) else int(kv_heads) * layers
    if header.number("attention.sliding_window"):
        total_heads //= FEWEST_FULL_LAYERS
    per_head = key_length * BYTES_PER_VALUE[type_k] + value_length * BYTES_PER_VALUE[type_v]
    return int(n_ctx * total_heads * per_head)


def available_bytes() -> int:
    """Tell what the host can still give, inside the control group's limit."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if not limit.exists() or (most := limit.read_text(encoding="ascii").strip()) == "max":
        return free_kib << 10
    # `anon` and not memory.current: the page cache gives way
    stat = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii")
    used = next(int(line.split()[1]) for line in stat.splitlines() if line.startswith("anon "))
    return min(free_kib << 10, int(most) - used)


def as_gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
