"""Commands that start a server by way of another program: which stay, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from proxy.moving import llama, sd
from proxy.moving.words import Word

CONTAINERS = frozenset(("docker", "podman", "nerdctl", "apptainer", "singularity", "distrobox"))
SHELLS = frozenset(
    ("sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "cmd", "pwsh", "powershell")
)
_IMAGE = re.compile(r"llama\.cpp:(server|full)\b.*")
"""llama-server's own images; the others do not say what is in them."""
_BETWEEN = re.compile(r"[\s;&|()]+")


def why_kept(words: Sequence[Word]) -> str | None:
    """Say why this stays a `cmd`; None: it does not plainly start a server that we know."""
    server = next(_servers(words), None)
    if server is None:
        return None
    starter = words[0].program
    if starter in CONTAINERS:
        return f"{starter} runs {server} in a container, and a bundled worker runs outside of any"
    if starter == "env" or "=" in words[0].value:
        return f"it sets variables before {server}; as `env` of the model they would be read"
    return f"{starter} starts {server}, and only a call of {server} alone is read"


def _servers(words: Sequence[Word]) -> Iterator[str]:
    """Name the servers that the words after the first call for."""
    texts = [word.value for word in words[1:]]
    if words and words[0].program in SHELLS:
        texts = [part for text in texts for part in _BETWEEN.split(text)]
    known = llama.PROGRAMS | sd.PROGRAMS
    known |= {sd.EITHER} if sd.LISTENS.intersection(texts) else set()
    for program in (Word(text, text).program for text in texts):
        if program in known:
            yield program
        elif _IMAGE.fullmatch(program):
            yield "llama-server"
