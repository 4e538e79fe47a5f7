"""Odd YAML: what of it is read, and what is said of the rest."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load_config
from tests.proxy.configs import lines_of, mistakes

MODEL = "models:\n  m:\n    echo: {}\n"
BOMB = "\n".join(
    ["a: &a [x, x, x]", *(f"{b}: &{b} [{f'*{a}, ' * 9}]" for a, b in pairwise("abcdefghijk"))]
)
"""Eleven short lines for ten billion texts."""


def read(content: bytes, folder: Path) -> Config:
    (folder / "swap.yaml").write_bytes(content)
    return load_config(folder / "swap.yaml", {}).config


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + MODEL.encode(),
        MODEL.replace("\n", "\r\n").encode(),
        MODEL.encode().rstrip(),
        b"%YAML 1.2\n---\n" + MODEL.encode() + b"...\n",
    ],
)
def test_other_ways_to_write_a_file(tmp_path: Path, content: bytes) -> None:
    """With a byte order mark, with Windows' line ends, without a last one, with YAML's marks."""
    assert list(read(content, tmp_path).models) == ["m"]


def test_keys_are_texts(tmp_path: Path) -> None:
    """Whatever they look like."""
    config = read(b"models: {7: {echo: {}}, 1.50: {echo: {}}, true: {echo: {}}}", tmp_path)

    assert list(config.models) == ["7", "1.50", "true"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "swap.yaml: is empty: it must be a mapping with the key `models`"),
        ("# nothing\n---\n", "swap.yaml: is empty: it must be a mapping with the key `models`"),
        ("\n- models\n", "swap.yaml:2: must be a mapping with the key `models`"),
        ("models", "swap.yaml:1: must be a mapping with the key `models`"),
        (
            "models:\n\tm:\n",
            "swap.yaml:2: not valid YAML: found character '\\t' that cannot start",
        ),
        ("a: \0", "swap.yaml:1: not valid YAML: it holds the character U+0000"),
        (f"{MODEL}---\n{MODEL}", "swap.yaml:4: not valid YAML: but found another document"),
        (f"models: {'[' * 5000}", "swap.yaml: not valid YAML: too deeply nested"),
        (f"m: {'[' * 150}{']' * 150}", "swap.yaml:1: m.0.0: is too deeply nested"),
        ("m: &m [*m]", "swap.yaml:1: m.0: refers to itself"),
        ("models: *m", "swap.yaml:1: not valid YAML: found undefined alias 'm'"),
        (BOMB, "swap.yaml: holds more than 200000 keys and items, with what aliases repeat"),
        ("models: {[a]: {echo: {}}}", "swap.yaml:1: not valid YAML: found unhashable key"),
        ("startPort: !!int many", "swap.yaml:1: startPort: is not what its tag says"),
        ("a:\n  b: !!bool maybe", "swap.yaml:2: a.b: is not what its tag says"),
        (
            f"startPort: {'9' * 5000}",
            "swap.yaml:1: startPort: is not what its tag says, has too",
        ),
        ('a: "\\ud83d"', "swap.yaml:1: a: is not what its tag says, has too many digits or half"),
        ("models: {'': {echo: {}}}", "swap.yaml:1: models.: is empty"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str, message: str) -> None:
    """In one line, with its place where there is one."""
    found = mistakes(text, tmp_path)

    assert len(found) == 1
    assert found[0].startswith(message)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("models:\n\tm:\n", 2, "YAML is indented by spaces, never by tabs"),
        (
            "models:\n  m:\n    cmd: x\n    ttl:5\n    name: y\n",
            4,
            "a key is followed by a colon and a space",
        ),
        ("models:\n  m:\n    ttl: 5\n   cmd: x\n", 4, "is it indented as its neighbours are?"),
        (
            "a: so: it is\n",
            1,
            "a text with a colon and a space needs quotes, a key a space behind its colon",
        ),
        ("a: {b: ${c}}\n", 1, "within braces or brackets a text with ${...} needs quotes"),
    ],
)
def test_what_is_often_wrong_gets_a_hint(tmp_path: Path, text: str, line: int, hint: str) -> None:
    """Not everybody knows what a block mapping is."""
    found = mistakes(text, tmp_path)

    assert len(found) == 1
    assert found[0].startswith(f"swap.yaml:{line}: not valid YAML: ")
    assert found[0].endswith(f"; {hint}")


def test_a_key_that_is_given_twice_hides_no_other_mistake(tmp_path: Path) -> None:
    """The first value is what counts, also behind a merge, and for what names it."""
    found = mistakes(
        "x-base: &base {ttl: 4}\n"
        "modelz: 1\n"
        "models:\n"
        "  a: {echo: {}, aliases: [n]}\n"
        "  a: {echo: {}, ttll: 5}\n"
        "  b: {<<: *base, echo: {}, ttl: 5, ttl: -2}\n"
        "  c: {echo: {}, aliases: [n]}\n",
        tmp_path,
    )

    assert [line.removeprefix("swap.yaml:") for line in found] == [
        "2: modelz: unknown key; did you mean models?",
        "5: models.a: is given twice; the first is in line 4",
        "6: models.b.ttl: is given twice; the first is in line 6",
        "7: models.c.aliases.0: 'n' is an alias of 'a' already",
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_told_with_its_line(tmp_path: Path, encoding: str) -> None:
    """Where the first byte is that cannot be read."""
    text = f"# Größe\n{MODEL}".encode(encoding)

    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path)

    assert lines_of(caught.value, tmp_path) == [
        "swap.yaml:1: is not UTF-8: save it in that encoding"
    ]
