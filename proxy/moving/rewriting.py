"""What an entry says from now on, put into the text in place of what it said."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import yaml

from proxy.moving.entry import USELESS, Kept, Translated
from proxy.moving.flags import Setting, Value
from proxy.moving.written import Edit, Pair, Source, pairs


def kept(source: Source, model: Pair, outcome: Kept) -> Iterator[Edit]:
    """Say above the `cmd` why it stays."""
    is_block = isinstance(model.value, yaml.MappingNode) and not model.value.flow_style
    above = pairs(model.value).get("cmd", model) if is_block else model
    start = source.line_start(above.key.start_mark.index)
    line = source.text[start : above.key.start_mark.index]
    indent = line[: len(line) - len(line.lstrip())]
    why = " ".join(outcome.why.split())  # it may repeat what is written on several lines
    yield Edit(start, start, f"{indent}# stays a cmd: {why}{source.newline}")


def translated(source: Source, model: Pair, outcome: Translated) -> Iterator[Edit]:
    """Put the worker in place of the `cmd`, and make comments of the keys that only it needs."""
    own = pairs(model.value)
    if isinstance(model.value, yaml.MappingNode) and model.value.flow_style:
        yield from _unfolded(source, model, outcome)
        return
    cmd = own["cmd"]
    yield Edit(*source.lines(cmd), source.block(_new_lines(source, cmd, outcome, cmd.column)))
    for name in USELESS.keys() & own.keys():
        yield _commented(source, own[name], f"  ({USELESS[name]})")
    if outcome.env:
        yield from _without(source, own["env"], outcome.env)


def _unfolded(source: Source, model: Pair, outcome: Translated) -> Iterator[Edit]:
    """Write an entry in braces as lines; its other keys stay as they are written."""
    column, own = model.column + 2, pairs(model.value)
    head = source.text[model.key.start_mark.index : source.end(model.key)] + ":"
    lines = [f"{head}  {source.behind(model.value)}".rstrip()]
    lines += _new_lines(source, own["cmd"], outcome, column)
    for name, pair in own.items():
        if name in USELESS:
            lines.append(f"{' ' * column}# {name}: {source.slice(pair.value)}  ({USELESS[name]})")
        elif name == "env" and outcome.env:
            lines += [
                f"{' ' * column}env: {rest}" for rest in _other_items(source, pair, outcome.env)
            ]
        elif name != "cmd":
            text = source.text[pair.key.start_mark.index : source.end(pair.value)]
            lines.append(f"{' ' * column}{text}")
    yield Edit(
        model.key.start_mark.index, source.line_end(source.end(model.value)), source.block(lines)
    )


def _new_lines(source: Source, cmd: Pair, outcome: Translated, column: int) -> Iterator[str]:
    indent = " " * column
    yield from (f"{indent}# {line}".rstrip() for line in _was(source, cmd.value))
    if outcome.left_out:
        yield f"{indent}# left out: {', '.join(outcome.left_out)}"
    yield from (f"{indent}# {remark}" for remark in outcome.remarks)
    yield from (f"{indent}{line}" for line in _entry_lines(outcome.kind, outcome.settings))


def _was(source: Source, command: yaml.Node) -> list[str]:
    """Repeat the command as it is written, for a comment."""
    first, *lines = source.slice(command).splitlines()
    if not lines:
        return [f"was: {first} {_behind_in_braces(source, command)}".rstrip()]
    if isinstance(command, yaml.ScalarNode) and command.style in ("|", ">"):
        _, sign, comment = first.partition("#")
        first = sign + comment
    rest = textwrap.dedent("\n".join(lines)).splitlines()
    return ["was:", *([f"  {first}"] if first else []), *(f"  {line}" for line in rest)]


def _behind_in_braces(source: Source, command: yaml.Node) -> str:
    behind = source.behind(command)
    return behind if behind.startswith("#") else ""


def _entry_lines(kind: str, settings: Sequence[Setting]) -> Iterator[str]:
    options = [one for one in settings if one.path[0] == kind]
    defaults = {one.path[2]: one.value for one in options if len(one.path) > 2}  # noqa: PLR2004
    yield f"{kind}:"
    for one in options:
        if len(one.path) == 2:  # noqa: PLR2004
            yield f"  {_line(one.path[1], one.value, one.remark)}"
    if defaults:
        yield f"  {_line('defaults', defaults)}"
    for one in settings:
        if one.path[0] != kind:
            yield _line(one.path[0], one.value, one.remark)


def _line(key: str, value: Value | Mapping[str, Value], remark: str = "") -> str:
    if isinstance(value, str) and "\n" in value:
        dumped = json.dumps(value)  # it fits into one line, and YAML reads it
    else:
        dumped = yaml.safe_dump(
            value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
        )
    told = f"  # {remark}" if remark else ""
    return f"{key}: {dumped.rstrip().removesuffix('...').rstrip()}{told}"


def _commented(source: Source, pair: Pair, reason: str) -> Edit:
    start, end = source.lines(pair)
    first, *rest = source.text[start:end].splitlines()
    column = pair.column
    lines = [f"{line[:column]}# {line[column:]}" if line.strip() else line for line in rest]
    return Edit(start, end, source.block([f"{first[:column]}# {first[column:]}{reason}", *lines]))


def _without(source: Source, env: Pair, gone: frozenset[int]) -> Iterator[Edit]:
    """Leave entries of `env` out; a setting says the same."""
    items = env.value.value
    if len(gone) == len(items):
        yield _commented(source, env, "")
    elif isinstance(env.value, yaml.SequenceNode) and env.value.flow_style:
        (rest,) = _other_items(source, env, gone)
        yield Edit(env.value.start_mark.index, source.end(env.value), rest)
    else:
        for index in gone:
            start = source.line_start(items[index].start_mark.index)
            dash = source.text.index("-", start)
            yield Edit(dash, dash, "# ")


def _other_items(source: Source, env: Pair, gone: frozenset[int]) -> list[str]:
    left = [source.slice(item) for index, item in enumerate(env.value.value) if index not in gone]
    return [f"[{', '.join(left)}]"] if left else []
