"""Tool calls in a model's text: found while it streams, or enforced by a grammar. Pure.

Three ways of saying a call are understood in free text: Hermes and Qwen's
``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, Llama 3's bare
``{"name": …, "parameters": {…}}``, and Mistral's ``[TOOL_CALLS]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from workers.llama import grammar, text

HERMES_OPEN, HERMES_CLOSE = "<tool_call>", "</tool_call>"
MISTRAL, PYTHON_TAG, ARGUMENTS_TAG = "[TOOL_CALLS]", "<|python_tag|>", "[ARGS]"
OPENERS = (HERMES_OPEN, MISTRAL, PYTHON_TAG)
CONTROL_TEXTS = (*OPENERS, HERMES_CLOSE, ARGUMENTS_TAG)
"""What may be a control token, whose text must be seen all the same."""

_FORCED_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*', re.DOTALL
)
_MISTRAL_NAME = re.compile(r"\s*([\w.-]+)\s*(?:\[ARGS\])?\s*(?=\{)")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: grammar.JsonSchema
    description: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """Words of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Begin:
    """A call begins; it is the `number`-th of the answer."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """A part of a call's arguments, as JSON text."""

    number: int
    fragment: str


Delta = Say | Begin | Arguments


class Scanner(Protocol):
    """Turns an answer's text, as it comes, into what the client is told."""

    def feed(self, piece: str) -> Iterator[Delta]: ...

    def finish(self) -> Iterator[Delta]: ...


class PlainScanner:
    """For answers without tools."""

    def feed(self, piece: str) -> Iterator[Delta]:
        if piece:
            yield Say(piece)

    def finish(self) -> Iterator[Delta]:
        return iter(())


class FreeScanner:
    """For `tool_choice: auto`: words go out at once, and a call when it is complete."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._said = False

    def feed(self, piece: str) -> Iterator[Delta]:
        self._held += piece
        begun = self._held.lstrip()
        if not begun or (not self._said and begun[0] == "{"):
            return  # maybe Llama 3's way: the end will tell
        at = text.first_of(self._held, OPENERS)
        certain = at if at >= 0 else len(self._held) - text.held_back(self._held, OPENERS)
        if certain:
            said, self._held = self._held[:certain], self._held[certain:]
            self._said = True
            yield Say(said)

    def finish(self) -> Iterator[Delta]:
        calls = list(parse_calls(self._held, self._names))
        if not calls and self._held:
            yield Say(self._held)
        for number, (name, arguments) in enumerate(calls):
            yield Begin(number, name)
            yield Arguments(number, json.dumps(arguments, ensure_ascii=False))


class ForcedScanner:
    """For one call that a grammar enforces: its arguments go out as they come."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False

    def feed(self, piece: str) -> Iterator[Delta]:
        self._held += piece
        if not self._begun and (head := _FORCED_HEAD.match(self._held)):
            self._begun = True
            self._held = self._held[head.end() :]
            yield Begin(0, json.loads(head[1]))
        # the last brace is the envelope's, so a brace waits until it is not the last
        certain = len(self._held.rstrip("} \t\n")) if self._begun else 0
        if certain:
            said, self._held = self._held[:certain], self._held[certain:]
            yield Arguments(0, said)

    def finish(self) -> Iterator[Delta]:
        rest = self._held.rstrip()
        if self._begun and rest:
            yield Arguments(0, rest.removesuffix("}").rstrip())


def forced_grammar(tools: Sequence[Tool]) -> str:
    """Make the grammar of one call of one of the tools. Raises grammar.Unsupported."""
    return grammar.of_any([(_envelope(tool), tool.parameters) for tool in tools])


def _envelope(tool: Tool) -> grammar.JsonSchema:
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": tool.parameters},
        "required": ["name", "arguments"],
    }


def parse_calls(said: str, names: Collection[str]) -> Iterator[tuple[str, object]]:
    """Find the calls in a text that holds them from its beginning on; unknown names do not count.

    Yields names and arguments.
    """
    for value in _call_values(said.strip()):
        call = value.get("function", value) if isinstance(value, dict) else value
        if not isinstance(call, dict):
            continue
        name = call.get("name")
        if isinstance(name, str) and name in names:
            yield name, _arguments(call)


def _call_values(said: str) -> Iterator[object]:
    if said.startswith(HERMES_OPEN):
        for part in said.split(HERMES_OPEN)[1:]:
            yield from _json_values(part)
    elif said.startswith(MISTRAL):
        for part in said.split(MISTRAL)[1:]:
            if named := _MISTRAL_NAME.match(part):
                for arguments in _json_values(part[named.end() :]):
                    yield {"name": named[1], "arguments": arguments}
            else:
                for value in _json_values(part):
                    yield from value if isinstance(value, list) else [value]
    else:
        yield from _json_values(said.removeprefix(PYTHON_TAG))


def _json_values(said: str) -> Iterator[object]:
    """Read JSON values, one after the other with `;` between, as far as they go."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(said):
        at += len(said[at:]) - len(said[at:].lstrip(" \t\n;"))
        try:
            value, at = decoder.raw_decode(said, at)
        except (ValueError, RecursionError):
            return
        yield value


def _arguments(call: Mapping[str, object]) -> object:
    """Give a call's arguments; some models write them as JSON in a string."""
    arguments = call.get("arguments", call.get("parameters", {}))
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def preamble(tools: Sequence[Tool]) -> str:
    """Tell a model whose chat template knows nothing of tools how to call them."""
    lines = [
        json.dumps(
            {"name": t.name, "description": t.description, "parameters": t.parameters},
            ensure_ascii=False,
        )
        for t in tools
    ]
    return "\n".join(
        [
            "You may call these functions:",
            *lines,
            "To call one, answer with nothing but:",
            f'{HERMES_OPEN}{{"name": "the name", "arguments": {{…}}}}{HERMES_CLOSE}',
        ]
    )
