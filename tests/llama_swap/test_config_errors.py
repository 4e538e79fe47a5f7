"""What is wrong with a file is told before anything starts, with its line and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llama_swap.house import checked

A = "models: {a: {cmd: 'x --port ${PORT}'}, b: {cmd: 'x --port ${PORT}', aliases: [bee]}}\n"
M = "models:\n  a:\n    cmd: x\n"
GROUPS = "groups: {g: {members: [a]}}\n"
PIN = "{{strategy: pin, targets: [{}]}}"
PEER = "peers: {p: {proxy: 'http://x', models: [m]}}\n"

WRONG = {
    # the whole file
    "negative unloadTimeout": (f"unloadTimeout: -1\n{A}", 1, "unloadTimeout"),
    "negative globalTTL": (f"globalTTL: -1\n{A}", 1, "globalTTL"),
    "startPort 0": (f"startPort: 0\n{A}", 1, "startPort"),
    "startPort beyond all ports": (f"startPort: 70000\n{A}", 1, "startPort"),
    "logToStdout": (f"logToStdout: all\n{A}", 1, "logToStdout"),
    "performance too often": (f"performance:\n  every: 1s\n{A}", 2, "5"),
    "an empty key": (f"apiKeys:\n  - ''\n{A}", 2, "empty"),
    "a key with a space": (f"apiKeys:\n  - ok\n  - a b\n{A}", 3, "space"),
    "a bad pattern": (f"upstream:\n  ignorePaths:\n    - '['\n{A}", 3, "ignorePaths"),
    "a list of models": ("models: [a]\n", 1, "models"),
    "a key given twice": (f"{A}startPort: 1\nstartPort: 2\n", 3, "twice"),
    "not YAML": ("models: {a: [}\n", 1, "YAML"),
    # a model
    "ttl": ("models:\n  a:\n    cmd: x\n    ttl: -2\n", 4, "TTL value -2"),
    "model's unloadTimeout": (
        "models:\n  a:\n    cmd: x\n    unloadTimeout: -1\n",
        4,
        "unloadTimeout",
    ),
    "env without a sign": (
        "models:\n  a:\n    cmd: x\n    env:\n      - NOSIGN\n",
        4,
        "KEY=VALUE",
    ),
    "an unclosed quote": ("models:\n  a:\n    cmd: y 'z\n", 3, "cmd"),
    "a modality": ("models:\n  a:\n    cmd: x\n    capabilities: {in: [video]}\n", 4, "text"),
    "context below 0": (
        "models:\n  a:\n    cmd: x\n    capabilities: {context: -1}\n",
        4,
        "context",
    ),
    "proxy is no URL": ("models:\n  a:\n    cmd: x\n    proxy: nonsense\n", 4, "proxy"),
    "alias of two": (
        "models:\n  a: {cmd: x, aliases: [n]}\n  b:\n    cmd: x\n    aliases: [n]\n",
        5,
        "n",
    ),
    "setParamsByID is a model": (
        f"{M}    filters:\n      setParamsByID: {{b: {{x: 1}}}}\n  b: {{cmd: x}}\n",
        5,
        "b",
    ),
    "setParamsByID is an alias": (
        f"{M}    filters:\n      setParamsByID: {{n: {{x: 1}}}}\n  b: {{cmd: x, aliases: [n]}}\n",
        None,
        "n",
    ),
    # groups, matrix, routing
    "a member twice": (f"{A}groups:\n  g:\n    members: [a, a]\n", 4, "a"),
    "a member of two groups": (
        f"{A}groups:\n  g: {{members: [a]}}\n  h: {{members: [a]}}\n",
        4,
        "a",
    ),
    "an unknown member": (f"{A}groups:\n  g:\n    members: [zz]\n", 4, "zz"),
    "groups and a matrix": (
        f"{A}groups: {{g: {{members: [a]}}}}\nmatrix: {{sets: {{s: a}}}}\n",
        None,
        "matrix",
    ),
    "groups here and in routing": (
        f"{A}{GROUPS}routing: {{router: {{use: group, settings: {{{GROUPS.strip()}}}}}}}\n",
        None,
        "routing",
    ),
    "an unknown router": (f"{A}routing:\n  router:\n    use: magic\n", 4, "matrix"),
    "an unknown scheduler": (f"{A}routing:\n  scheduler:\n    use: lottery\n", 4, "fifo"),
    "no set": (f"{A}matrix:\n  sets: {{}}\n", None, "set"),
    "an unknown name in a set": (f"{A}matrix:\n  sets:\n    s: a & zz\n", 4, "zz"),
    "a set that is not there": (f"{A}matrix:\n  sets:\n    s: a & +t\n", 4, "t"),
    "sets in a circle": (f"{A}matrix:\n  sets:\n    s: a & +t\n    t: b | +s\n", None, "itself"),
    "an open bracket": (f"{A}matrix:\n  sets:\n    s: (a & b\n", 4, "s"),
    "a cost of 0": (f"{A}matrix:\n  evict_costs:\n    a: 0\n  sets: {{s: a}}\n", 4, "a"),
    "a var for nobody": (f"{A}matrix:\n  vars:\n    v: zz\n  sets: {{s: v}}\n", None, "zz"),
    # profiles, selectors, peers
    "a profile without pins": (f"{A}profiles:\n  p: {{pins: {{}}}}\n", 3, "pin"),
    "a pin to nobody": (f"{A}profiles:\n  p:\n    pins: {{a: zz}}\n", 4, "zz"),
    "profiles as a list": (f"{A}profiles: [a]\n", 2, "profiles"),
    "an unknown strategy": (f"{A}selectors:\n  s: {{strategy: luck, targets: [a]}}\n", 3, "warm"),
    "no targets": (f"{A}selectors:\n  s: {{strategy: pin, targets: []}}\n", 3, "targets"),
    "a target that is nobody": (
        f"{A}selectors:\n  s: {{strategy: pin, targets: [zz]}}\n",
        3,
        "zz",
    ),
    "a selector of a selector": (
        f"{A}selectors:\n  s: {PIN.format('a')}\n  t: {PIN.format('s')}\n",
        4,
        "s",
    ),
    "a selector named as a model": (
        f"{A}selectors:\n  a: {{strategy: pin, targets: [b]}}\n",
        3,
        "a",
    ),
    "spillover 0": (
        f"{A}selectors:\n  s: {{strategy: spillover, targets: [a], settings: {{spillover: 0}}}}\n",
        3,
        "spillover",
    ),
    "spillover to who cannot coexist": (
        f"{A}selectors:\n  s: {{strategy: spillover, targets: [a, b]}}\n",
        3,
        "",
    ),
    "a peer without models": (f"{A}peers:\n  p: {{proxy: 'http://x', models: []}}\n", 3, "models"),
    "a peer without an address": (f"{A}peers:\n  p: {{models: [m]}}\n", 3, "proxy"),
    # what llama-swap lets pass in silence
    "an unknown key": (f"{A}helthCheckTimeout: 5\n", 2, "healthCheckTimeout"),
    "an unknown key of a model": ("models:\n  a:\n    cmd: x\n    tttl: 5\n", 4, "ttl"),
    "an unknown key of a peer": (f"{A}{PEER.replace('models', 'apikey: x, models')}", 2, "apiKey"),
    "no cmd": ("models:\n  a:\n    ttl: 5\n", 2, "cmd"),
    "an alias that is an id": (
        "models:\n  a: {cmd: x}\n  b:\n    cmd: x\n    aliases: [a]\n",
        5,
        "a",
    ),
    "a preload of nobody": (f"{A}hooks:\n  on_startup:\n    preload: [zz]\n", 4, "zz"),
    "a priority of nobody": (
        f"{A}routing:\n  scheduler:\n    settings:\n      fifo:\n        priority: {{zz: 1}}\n",
        6,
        "zz",
    ),
}


def with_port(text: str) -> str:
    """Let the commands be such as could serve."""
    return text.replace("cmd: x", "cmd: 'x ${PORT}'")


@pytest.mark.parametrize("case", WRONG)
def test_it_is_told_with_its_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing of it is a traceback."""
    text, line, word = WRONG[case]
    told = checked(with_port(text), tmp_path, capsys)

    assert told.status == 1
    assert word in told.text
    assert "mistake" in told.text
    assert (f"swap.yaml:{line}: " if line else "swap.yaml:") in told.text


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not one for each try."""
    text = "startPort: 0\nmodels:\n  a:\n    cmd: x\n    ttl: -2\n    tttl: 1\nnope: 1\n"
    told = checked(with_port(text), tmp_path, capsys)

    assert all(f"swap.yaml:{line}: " in told.text for line in (1, 5, 6, 7))


COMPATIBLE = ["an unknown key", "no cmd", "an alias that is an id", "a preload of nobody"]


@pytest.mark.parametrize("case", COMPATIBLE)
def test_what_llama_swap_lets_pass_is_a_warning_if_you_like(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--compat takes the file, and still tells."""
    text, line, word = WRONG[case]
    more = "" if case != "no cmd" else "  b: {cmd: x}\n"
    told = checked(with_port(text + more), tmp_path, capsys, "--compat")

    assert told.status == 0
    assert word in told.text
    assert f"swap.yaml:{line}" in told.text


@pytest.mark.parametrize("case", ["ttl", "negative globalTTL", "an unknown member"])
def test_what_llama_swap_refuses_is_refused_all_the_same(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--compat forgives nothing that llama-swap does not."""
    assert checked(with_port(WRONG[case][0]), tmp_path, capsys, "--compat").status == 1
