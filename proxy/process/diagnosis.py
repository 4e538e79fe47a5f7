"""Why a program did not come up, as far as its status and its last words tell."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterable

SHELL_SIGNAL = 128  # how a shell and our guard report a signal as a status

TRACE = re.compile(r"\s*(File \"|(Current )?[Tt]hread 0x|Extension modules:|Fatal Python error)")
"""What faulthandler prints after an engine's own last words."""
_TELLING = re.compile(r"error|fail|cannot|exception|no such|not found|memory|abort", re.IGNORECASE)
_NO_MEMORY = re.compile(
    r"out ?of ?(device ?)?memory|cudaMalloc failed|can(no|')t allocate|bad_alloc|\bMemoryError\b"
    r"|ALLOC_FAILED|(fail\w* to alloc\w*|alloc\w* fail\w*|unable to allocate).*buffer"
    r"|buffer.*alloc\w* fail",
    re.IGNORECASE,
)
"""How engines and drivers say it: CUDA, HIP, Vulkan, ggml, torch, C++, Python, the C library."""
_REASONS = (
    ("out_of_memory", _NO_MEMORY),
    (
        "port_in_use",
        re.compile(
            r"address (is )?already in use|EADDRINUSE|only one usage of each socket"
            r"|(couldn't|could not|cannot|can't|failed to|unable to) bind",
            re.IGNORECASE,
        ),
    ),
    (
        "bad_options",
        re.compile(
            r"(unknown|invalid|unrecogni[sz]ed|unexpected|unsupported) (argument|option|flag)"
            r"|no such option|usage:",
            re.IGNORECASE,
        ),
    ),
    (
        "no_such_file",
        re.compile(
            r"no such file|file not found|(can ?not|can't|could not|couldn't|failed to|unable to)"
            r" (open|find)|does not exist",
            re.IGNORECASE,
        ),
    ),
)
_ADVICE = {
    "port_in_use": "somebody else has its port",
    "bad_options": "see its options in cmd",
    "no_such_file": "see the paths in cmd",
    "killed": "often that is the kernel, for want of host memory",
}


def ran_out_of_memory(lines: Iterable[str]) -> bool:
    """Tell whether these lines say so: engines end over it without another word."""
    return any(_NO_MEMORY.search(line) for line in lines)


def reason_of(status: int, lines: Collection[str]) -> str:
    """Name the reason, in the words of `StartFailed`; `crashed` when nothing tells."""
    for reason, pattern in _REASONS:
        if any(pattern.search(line) for line in lines):
            return reason
    return "killed" if _signal_of(status) == signal.SIGKILL else "crashed"


def last_words(lines: Iterable[str]) -> str:
    """Choose the line that says most about the end."""
    spoken = [line.strip() for line in lines if line.strip()]
    telling = [line for line in spoken if _TELLING.search(line)]
    return (telling or spoken or ["it printed nothing"])[-1]


def obituary(status: int, lines: Collection[str]) -> str:
    """Tell people how it ended and why, in one line."""
    number = _signal_of(status)
    how = f"signal {number}" if number else f"status {status}"
    advice = _ADVICE.get(reason_of(status, lines))
    told = f"({how}): {last_words(lines)}"
    return f"{told} ({advice})" if advice else told


def _signal_of(status: int) -> int:
    """Tell which signal ended it, 0 if none did."""
    if status < 0:
        return -status
    number = status - SHELL_SIGNAL
    return number if number in set(signal.Signals) else 0
