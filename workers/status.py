"""The status pipe: lines of JSON that tell the proxy how far a worker is."""

from __future__ import annotations

import json
import os
import time

from workers import lifeline

PROGRESS_EVERY_S = 0.05
DETAIL_CHARACTERS = 1000  # so that a line fits PIPE_BUF, and its write is one (pipe(7))


class StatusPipe:
    """Writes status lines; safe from any thread, for a line is one atomic write."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # noqa: FBT003  # the name of the call says what it is
        self._fd = fd
        self._last_progress = 0.0

    def say(self, state: str, **more: object) -> None:
        told = {k: v[:DETAIL_CHARACTERS] if isinstance(v, str) else v for k, v in more.items()}
        line = json.dumps({"state": state, **told}) + "\n"
        try:
            os.write(self._fd, line.encode())
        except BrokenPipeError:
            lifeline.die()

    def progress(self, part: float) -> None:
        now = time.monotonic()
        if now - self._last_progress >= PROGRESS_EVERY_S or part >= 1:
            self._last_progress = now
            self.say("loading", progress=round(min(max(part, 0.0), 1.0), 3))
