"""A YAML text by its lines: where its nodes stand in it, and edits that leave the rest alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import yaml


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace what stands between two offsets."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A key with its value, as they are written."""

    key: yaml.Node
    value: yaml.Node

    @property
    def column(self) -> int:
        return int(self.key.start_mark.column)


class Source:
    """The text, and what one needs to know of it to edit it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"

    def line_start(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def line_end(self, offset: int) -> int:
        """Give the offset of the end of the line, before its newline."""
        end = self.text.find("\n", offset)
        end = len(self.text) if end < 0 else end
        return end - 1 if self.text[:end].endswith("\r") and end > offset else end

    def end(self, node: yaml.Node) -> int:
        """Tell where a node ends; PyYAML counts what follows a block to it."""
        match node:
            case yaml.CollectionNode(value=[*_, last]) if not node.flow_style:
                return self.end(last[1] if isinstance(last, tuple) else last)
            case yaml.ScalarNode(style="|" | ">"):
                return len(self.text[: node.end_mark.index].rstrip())
            case _:
                return int(node.end_mark.index)

    def slice(self, node: yaml.Node) -> str:
        return self.text[node.start_mark.index : self.end(node)]

    def lines(self, pair: Pair) -> tuple[int, int]:
        """Give the offsets of the whole lines of a pair, without the last newline."""
        start = self.line_start(pair.key.start_mark.index)
        return start, self.line_end(self.end(pair.value))

    def behind(self, node: yaml.Node) -> str:
        """Give what stands on the last line of a node behind it: a comment, or nothing."""
        end = self.end(node)
        return self.text[end : self.line_end(end)].strip()

    def block(self, lines: Iterable[str]) -> str:
        return self.newline.join(lines)

    def with_edits(self, edits: Iterable[Edit]) -> str:
        """Give the text with the edits made; they must not overlap."""
        text = self.text
        for edit in sorted(edits, key=lambda one: (one.start, one.end), reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return text


def pairs(node: yaml.Node) -> Mapping[str, Pair]:
    """Give the keys of a mapping that are written in it; what it merges is not."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): Pair(key, value) for key, value in node.value}


def shared(root: yaml.Node) -> frozenset[int]:
    """Give the ids of the nodes that stand in more than one place, by anchors."""
    counted = Counter(id(node) for node in _walk(root, frozenset()))
    return frozenset(one for one, count in counted.items() if count > 1)


def _walk(node: yaml.Node, above: frozenset[int]) -> Iterator[yaml.Node]:
    yield node
    match node:
        case yaml.MappingNode():
            inner = [one for pair in node.value for one in pair]
        case yaml.SequenceNode():
            inner = list(node.value)
        case _:
            return
    for one in inner:
        if id(one) not in above:
            yield from _walk(one, above | {id(node)})
