"""YAML without its surprises: `no` is a text, and nothing but data can be written."""

from __future__ import annotations

import re

import yaml


class StrictLoader(yaml.SafeLoader):
    """YAML 1.2's core schema, more or less: only what looks like a number is one.

    PyYAML's own rules are YAML 1.1's: `no` is False, 12:30:00 is 45000, 010 is 8.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", [*"~nN", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^{_pattern}$"), list(_first)
    )


def _tags(*names: str) -> frozenset[str]:
    return frozenset(f"tag:yaml.org,2002:{name}" for name in names)


TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
PLAIN = _tags("null", "bool", "int", "float")
"""What a text without quotes may be instead of a text."""
TAGS = PLAIN | _tags("str", "seq", "map", "merge")


def plain_tag(loader: StrictLoader, text: str) -> str | None:
    """Tell what a text without quotes is instead of a text; None: it is one."""
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # PyYAML's stubs
    return tag if tag in PLAIN else None
