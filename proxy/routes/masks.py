"""Makes a command fit to be shown: what looks or is known like a secret is masked. PURE."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

MASK = "***"
LEAST_CHARACTERS = 4
"""A shorter known secret would be found everywhere, and hide nothing."""

_WORDS = (
    "key|keys|apikey|api_?keys?|token|password|passwd|passphrase|secret|secrets"
    "|credential|credentials|auth|authorization|bearer|pat"
)
"""How the names of secrets end."""
_SECRET_NAME = re.compile(rf"(?:.*[-_.])?(?:{_WORDS})|-hft", re.IGNORECASE)
_INNER = re.compile(
    rf"(?<![\w-])(-{{1,2}}(?:[\w.-]*[-_.])?(?:{_WORDS})|-hft"
    rf"|(?:\w+_)?(?:{_WORDS})(?==))(\s+|=)(\"[^\"]*\"|'[^']*'|[^\s'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"((?:authorization|x-api-key|api-key|cookie)\s*:\s*(?:(?:bearer|basic)\s+)?|bearer\s+)[^\s'\"]+",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(://)[^/@\s]+(@)")


def sounds_secret(name: str) -> bool:
    """Tell whether a variable or flag of this name holds a secret."""
    return _SECRET_NAME.fullmatch(name.lstrip("-")) is not None or name == "-hft"


def masked(command: str, secrets: Iterable[str]) -> str:
    """Show the command without its secrets; `secrets` are those that are known by their value."""
    known = _known(secrets)
    try:
        words = shlex.split(command)
    except ValueError:  # not as a shell would write it
        return _hidden(_inner(command), known)
    shown = shlex.join(_hidden(word, known) for word in _words(words))
    return shown.replace(f"'{MASK}'", MASK)


def masked_text(text: str, secrets: Iterable[str]) -> str:
    """Show any other text, such as an address, without these and without credentials in URLs."""
    return _hidden(_IN_URL.sub(rf"\1{MASK}\2", text), _known(secrets))


def _known(secrets: Iterable[str]) -> list[str]:
    """Sort them so that one that holds another goes first."""
    return sorted({one for one in secrets if len(one) >= LEAST_CHARACTERS}, key=len, reverse=True)


def _words(words: Iterable[str]) -> Iterator[str]:
    is_next = False
    for word in words:
        name, sign, _ = word.partition("=")
        if is_next and not word.startswith("-"):
            is_next = False
            yield MASK
        elif sign and sounds_secret(name):
            yield f"{name}={MASK}"
        else:
            is_next = word.startswith("-") and sounds_secret(word)
            yield _inner(word)


def _inner(text: str) -> str:
    """Mask inside one word: a shell's script, a header, an address."""
    text = _IN_URL.sub(rf"\1{MASK}\2", _HEADER.sub(rf"\1{MASK}", text))
    return _INNER.sub(rf"\1\2{MASK}", text) if re.search(r"\s", text) else text


def _hidden(text: str, known: Iterable[str]) -> str:
    for secret in known:
        text = text.replace(secret, MASK)
    return text
