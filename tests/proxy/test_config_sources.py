"""Where a config is read from: one file, a directory, or both together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config import ConfigError, Source, load_config
from proxy.config.document import Document, Where, read_document
from proxy.config.merge import merged, without
from tests.proxy.configs import lines_of, load_all

A_MODEL = "models: {%s: {echo: {}}}\n"


def mistakes_of(files: dict[str, str], folder: Path, main: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_all(files, folder, main)
    return lines_of(caught.value, folder)


def test_files_are_put_together(tmp_path: Path) -> None:
    """Maps merge, lists are joined, what says nothing yields, equal values are one."""
    found = load_all(
        {
            "20.yaml": "apiKeys: [c]\nglobalTTL: 5\nhooks: {on_startup: {preload: [b]}}\n"
            "macros: {two: '${one}2'}\n" + A_MODEL % "b",
            "10.yml": "apiKeys: [b]\nlogLevel: ~\nmodels:\n  a: {echo: {}, name: '${two}'}\n",
            "30.yaml": "",
            "40.txt": "not: read\n",
        },
        tmp_path,
        "apiKeys: [a]\nlogLevel: debug\nglobalTTL:\nmacros: {one: 1}\n" + A_MODEL % "main",
    )
    config = found.config

    assert list(config.models) == ["main", "a", "b"]
    assert [entry.key.get_secret_value() for entry in config.api_keys] == ["a", "b", "c"]
    assert (config.log_level, config.global_ttl, config.preload) == ("debug", 5.0, ("b",))
    assert (config.macros, config.models["a"].name) == ({"one": 1, "two": "12"}, "12")
    assert config.folder == tmp_path


def test_folders_in_the_folder_are_not_read(tmp_path: Path) -> None:
    """Nor is one that looks like a file."""
    (tmp_path / "conf.d" / "more.yaml").mkdir(parents=True)
    (tmp_path / "conf.d" / "more.yaml" / "x.yaml").write_text("nonsense: 1\n")
    found = load_all({"a.yaml": A_MODEL % "a"}, tmp_path)

    assert list(found.config.models) == ["a"]
    assert found.config.folder == tmp_path / "conf.d"


def test_a_mistake_is_in_its_own_file(tmp_path: Path) -> None:
    """Its line is counted there, also where lists were joined, and for what YAML says."""
    told = mistakes_of(
        {"a.yaml": "\napiKeys:\n  - x\n  - ''\nui: {activty: {}}\n", "b.yaml": "\n\nttl: 1\n"},
        tmp_path,
        "apiKeys: [one]\n" + A_MODEL % "m",
    )
    broken = mistakes_of({"a.yaml": "\na: [\n", "b.yaml": "a: 1\na: 2\n"}, tmp_path)

    assert told == [
        "conf.d/a.yaml:4: apiKeys.2.key: the key is empty",
        "conf.d/a.yaml:5: ui.activty: unknown key; did you mean activity?",
        "conf.d/b.yaml:3: ttl: unknown key; it is a key of a model, not of the whole file",
    ]
    assert broken[0].startswith("conf.d/a.yaml:3: not valid YAML")
    assert broken[1] == "conf.d/b.yaml:2: a: is given twice; the first is in line 1"


def test_a_variable_is_missing_in_its_own_file(tmp_path: Path) -> None:
    """The environment is asked for each file by itself."""
    told = mistakes_of({"a.yaml": A_MODEL % "a", "b.yaml": "\nlogLevel: ${env.NO}\n"}, tmp_path)

    assert told == ["conf.d/b.yaml:2: logLevel: the environment variable NO is not set"]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("logLevel: info", "\nlogLevel: warn", "2: logLevel: is another value than in a.yaml:1"),
        ("macros: {a: 1}", "macros: {a: '1'}", "1: macros.a: is another value than in a.yaml:1"),
        ("macros: {a: 1}", "macros: {a: true}", "1: macros.a: is another value than in a.yaml:1"),
        ("apiKeys: [a]", "apiKeys: {}", "1: apiKeys: is another value than in a.yaml:1"),
        (
            "models: {a: {x: 1}}",
            "models: {a: {y: 1}}",
            "1: models.a: is defined already in a.yaml:1",
        ),
        ("peers: {a: {}}", "peers: {a: {}}", "1: peers.a: is defined already in a.yaml:1"),
        ("groups: {a: {}}", "groups: {a: {}}", "1: groups.a: is defined already in a.yaml:1"),
        (
            "routing: {router: {settings: {groups: {a: {}}}}}",
            "routing: {router: {settings: {groups: {a: {}}}}}",
            "1: routing.router.settings.groups.a: is defined already in a.yaml:1",
        ),
    ],
)
def test_conflicts_name_both_places(tmp_path: Path, first: str, second: str, message: str) -> None:
    """No value is shown, as it may be a secret."""
    told = mistakes_of({"a.yaml": first, "b.yaml": second}, tmp_path)

    assert f"b.yaml:{message}" in [line.replace("conf.d/", "") for line in told]


def test_conflicts_hide_no_other_mistakes(tmp_path: Path) -> None:
    """The first file's word is what counts then."""
    told = mistakes_of(
        {"a.yaml": "logLevel: chatty\n" + A_MODEL % "m", "b.yaml": "logLevel: info\nttl: 1\n"},
        tmp_path,
    )

    assert [line.split(": ")[:2] for line in told] == [
        ["conf.d/a.yaml:1", "logLevel"],
        ["conf.d/b.yaml:1", "logLevel"],
        ["conf.d/b.yaml:2", "ttl"],
    ]


def test_a_file_is_not_read_twice(tmp_path: Path) -> None:
    """The main file may not be one of the directory's, however it is named."""
    (tmp_path / "swap.yaml").write_text(A_MODEL % "m")
    (tmp_path / "link.yaml").symlink_to("swap.yaml")
    with pytest.raises(ConfigError, match=r"swap\.yaml: lies in .* too, and would be read twice"):
        load_config(Source(tmp_path / "swap.yaml", tmp_path))

    with pytest.raises(ConfigError, match=r"link\.yaml: lies in"):
        load_config(Source(tmp_path / "link.yaml", tmp_path))


def test_a_directory_may_be_missing_or_empty(tmp_path: Path) -> None:
    """Both are said."""
    with pytest.raises(ConfigError, match=r"nowhere: cannot be read: No such file.*--config-dir"):
        load_config(Source(folder=tmp_path / "nowhere"))

    with pytest.raises(ConfigError, match=r"has no file that ends in \.yml or \.yaml"):
        load_config(Source(folder=tmp_path))


def test_a_file_may_be_missing_or_of_bytes(tmp_path: Path) -> None:
    """Beside a good one, too."""
    (tmp_path / "a.yaml").write_bytes(b"a:\n\xff\xfe")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: is not UTF-8"):
        load_config(Source(folder=tmp_path))

    (tmp_path / "a.yaml").write_text(A_MODEL % "a")
    with pytest.raises(ConfigError, match=r"swap\.yaml: cannot be read: No such file"):
        load_config(Source(tmp_path / "absent" / "swap.yaml", tmp_path))


def test_a_list_is_no_part_of_a_config(tmp_path: Path) -> None:
    """It is told by its own file's name."""
    (tmp_path / "a.yaml").write_text("- a\n")
    (tmp_path / "b.yaml").write_text(A_MODEL % "a")

    with pytest.raises(ConfigError) as caught:
        load_config(Source(folder=tmp_path))

    told = "a.yaml:1: must be a mapping with the key `models`"
    assert lines_of(caught.value, tmp_path) == [told]


def test_the_files_are_told_as_they_are_now(tmp_path: Path) -> None:
    """So a watcher sees one that came later."""
    source = Source(folder=tmp_path)
    (tmp_path / "b.yaml").touch()
    before = source.files()
    (tmp_path / "a.yml").touch()

    assert before == (tmp_path / "b.yaml",)
    assert source.files() == (tmp_path / "a.yml", tmp_path / "b.yaml")
    assert source.paths == (tmp_path,)


def test_created_is_when_the_newest_file_was_written(tmp_path: Path) -> None:
    """A change in any of them is a new config."""
    files = {"a.yaml": A_MODEL % "a", "b.yaml": A_MODEL % "b"}
    load_all(files, tmp_path)
    for name, at in (("a.yaml", 2000), ("b.yaml", 1000)):
        os.utime(tmp_path / "conf.d" / name, (at, at))

    assert load_config(Source(folder=tmp_path / "conf.d")).config.created == 2000


def test_places_after_something_was_taken_out() -> None:
    """The items behind it move up, with all that they hold."""
    document = read_document("list:\n  - a\n  - {x: 1}\n  - {y: 2}\nkey: 1\nk2: 2\n")
    shorter = without(document, ("list", "1"))
    fewer = without(shorter, ("key",))

    assert shorter.data == {"list": ["a", {"y": 2}], "key": 1, "k2": 2}
    assert lines_in(shorter, ("list", "0"), ("list", "1"), ("list", "1", "y")) == [2, 4, 4]
    assert (fewer.data, lines_in(fewer, ("k2",))) == ({"list": ["a", {"y": 2}], "k2": 2}, [6])
    assert ("key",) not in fewer.places
    assert without(fewer, ("nothing", "here")).data == fewer.data


def test_places_of_joined_lists() -> None:
    """An item of the second file is behind those of the first."""
    first, second = read_document("a:\n  - 1\n"), read_document("\n\na:\n  - {b: 2}\n")
    both = merged(first, second)

    assert both.data == {"a": [1, {"b": 2}]}
    assert lines_in(both, ("a", "0"), ("a", "1"), ("a", "1", "b")) == [2, 4, 4]


def lines_in(document: Document, *wheres: Where) -> list[int | None]:
    """Tell the lines of these places."""
    places = [document.place_of(where) for where in wheres]
    return [place.line if place is not None else None for place in places]
