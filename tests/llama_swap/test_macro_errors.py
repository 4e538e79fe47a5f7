"""Macros that cannot be filled in are told before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llama_swap.house import checked

WRONG = {
    "unknown": ("models:\n  a:\n    cmd: ECHO ${zz}\n", 3, "zz"),
    "below": ("macros:\n  x: ${y}\n  y: 1\nmodels: {a: {cmd: 'ECHO'}}\n", 2, "y"),
    "itself": ("macros:\n  x: a${x}\nmodels: {a: {cmd: 'ECHO'}}\n", 2, "x"),
    "PORT": ("macros:\n  PORT: 1\nmodels: {a: {cmd: 'ECHO'}}\n", 2, "PORT"),
    "own PID": ("models:\n  a:\n    macros:\n      PID: 1\n    cmd: ECHO\n", 4, "PID"),
    "odd name": ("macros:\n  'a b': 1\nmodels: {a: {cmd: 'ECHO'}}\n", 2, "a b"),
    "long name": (f"macros:\n  {'x' * 64}: 1\nmodels: {{a: {{cmd: 'ECHO'}}}}\n", 2, "xxx"),
    "a list": ("macros:\n  x: [1]\nmodels: {a: {cmd: 'ECHO'}}\n", 2, "x"),
    "unset variable": ("models:\n  a:\n    cmd: ECHO ${env.NO_SUCH_ONE}\n", 3, "NO_SUCH_ONE"),
    "PID in cmd": ("models:\n  a:\n    cmd: ECHO ${PID}\n", 3, "PID"),
    "in metadata": ("models:\n  a:\n    cmd: ECHO\n    metadata: {x: '${zz}'}\n", 4, "zz"),
    "in a peer's key": (
        "peers:\n  p: {proxy: 'http://x', models: [m], apiKey: '${zz}'}",
        2,
        "zz",
    ),
    "PORT in proxy alone": (
        "models:\n  a:\n    cmd: sleep 1\n    proxy: http://x:${PORT}\n",
        4,
        "PORT",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_macro_is_told_with_its_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing starts with half a command."""
    text, line, word = WRONG[case]
    told = checked(text.replace("ECHO", "server --port ${PORT}"), tmp_path, capsys)

    assert told.status == 1
    assert f"swap.yaml:{line}: " in told.text
    assert word in told.text


def test_a_comment_may_hold_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A variable that is not set does no harm in a comment of the file."""
    text = "# ${env.NO_SUCH_ONE}\nmodels: {a: {cmd: 'x --port ${PORT}'}} # ${env.NOR_THIS}\n"

    assert checked(text, tmp_path, capsys).status == 0
