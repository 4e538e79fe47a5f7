"""Answers of the llama worker that have a shape: schemas, grammars, tool calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.workers import launch
from tests.workers.llama_talk import OPTIONS, PARIS, ask, chat, refused, sent
from workers.llama import grammar

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"level": {"type": "string", "enum": levels}},
                "required": ["level"],
            },
        },
    }
    for name, levels in (("set_heat", ["low", "high"]), ("set_light", ["on", "off"]))
]
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "note": {"type": "string", "maxLength": 8},
        "sizes": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        "round": {"type": ["boolean", "null"]},
    },
    "required": ["colour", "note", "sizes", "round"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(models: Path) -> AsyncIterator[launch.Launched]:
    """Serve the tiny chat model to clients that are trusted with grammars."""
    options = OPTIONS | {"model": str(models / "chat.gguf"), "allow_grammar": True}
    async with launch.launched("llama", options) as ready:
        yield ready


@pytest.mark.parametrize("seed", range(3))
async def test_schema_holds(worker: launch.Launched, seed: int) -> None:
    """Whatever the model would rather say, the answer has the shape that was asked for."""
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}

    answer = await chat(worker, response_format=form, seed=seed, temperature=3, max_tokens=400)

    assert answer.choices[0].finish_reason == "stop"
    told = json.loads(answer.choices[0].message.content)
    assert list(told) == ["colour", "note", "sizes", "round"]
    assert told["colour"] in ("red", "blue")
    assert len(told["note"]) <= 8
    assert 1 <= len(told["sizes"]) <= 2
    assert told["round"] in (True, False, None)


async def test_json_object_is_an_object(worker: launch.Launched) -> None:
    """`json_object` constrains too: the answer begins as an object and nothing else."""
    answer = await chat(worker, response_format={"type": "json_object"})

    assert answer.choices[0].message.content.startswith("{")


async def test_optional_members_stay_valid(worker: launch.Launched) -> None:
    """Any subset of optional members is JSON with its commas in the right places."""
    flag = {"type": "boolean"}
    names = ("a", "b", "c", "d")
    for required in ([], ["b"], ["a", "d"], ["c"]):
        schema = {"properties": dict.fromkeys(names, flag), "required": required}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        for seed in range(4):
            answer = await chat(
                worker, response_format=form, seed=seed, temperature=9, max_tokens=300
            )
            told = json.loads(answer.choices[0].message.content)
            assert set(required) <= set(told) <= set(names)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"set_heat", "set_light"}),
        ({"type": "function", "function": {"name": "set_light"}}, {"set_light"}),
    ],
)
async def test_tool_is_called_when_it_must(
    worker: launch.Launched, choice: Any, names: set[str]
) -> None:
    """A required or named tool is called with arguments that its schema allows."""
    answer = await chat(worker, tools=TOOLS, tool_choice=choice, max_tokens=200)

    [call] = answer.choices[0].message.tool_calls
    assert call.function.name in names
    levels = {"set_heat": ("low", "high"), "set_light": ("on", "off")}[call.function.name]
    assert json.loads(call.function.arguments)["level"] in levels
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_tool_with_definitions_is_called(worker: launch.Launched) -> None:
    """Parameters as zod writes them, with references into `definitions`, are enforced."""
    parameters = {
        "$ref": "#/definitions/Heat",
        "definitions": {
            "Heat": {"type": "object", "properties": {"on": {"const": 1}}, "required": ["on"]}
        },
    }
    tool = {"type": "function", "function": {"name": "heat", "parameters": parameters}}

    answer = await chat(worker, tools=[tool], tool_choice="required", max_tokens=200)

    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"on": 1}


async def test_streamed_call_names_itself_once(worker: launch.Launched) -> None:
    """Id and name come in the first delta only, and the arguments in parts after it."""
    stream = await chat(worker, tools=TOOLS, tool_choice="required", max_tokens=200, stream=True)

    deltas = [c.choices[0].delta async for c in stream if c.choices[0].delta.tool_calls]

    calls = [delta.tool_calls[0] for delta in deltas]
    assert [bool(call.id) for call in calls] == [True] + [False] * (len(calls) - 1)
    assert [bool(call.function.name) for call in calls] == [True] + [False] * (len(calls) - 1)
    assert "level" in json.loads("".join(call.function.arguments or "" for call in calls))


@pytest.mark.parametrize("stream", [False, True])
async def test_call_of_the_models_own_will_is_found(
    worker: launch.Launched, *, stream: bool
) -> None:
    """With `auto`, a call that the model writes in its own way comes out as a call."""
    said = '<tool_call>{"name": "set_light", "arguments": {"level": "on"}}</tool_call>'
    rule = f"root ::= {grammar.literal('Well. ' + said)}"

    answer = await chat(
        worker, tools=TOOLS, max_tokens=200, stream=stream, extra_body={"grammar": rule}
    )

    if stream:
        deltas = [chunk.choices[0].delta async for chunk in answer]
        calls = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
        content = "".join(delta.content or "" for delta in deltas)
    else:
        content, calls = answer.choices[0].message.content, answer.choices[0].message.tool_calls
    assert content == "Well. "
    assert calls[0].function.name == "set_light"
    arguments = "".join(call.function.arguments for call in calls)
    assert json.loads(arguments) == {"level": "on"}


async def test_tools_that_are_not_needed_do_no_harm(worker: launch.Launched) -> None:
    """With `none` the tools are as if they were not there, and past calls can be read."""
    history = [
        {"role": "user", "content": "Heat!"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "set_heat", "arguments": '{"level": "low"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]

    none = await chat(worker, tools=TOOLS, tool_choice="none")
    auto = await sent(worker, "/v1/chat/completions", messages=history, tools=TOOLS, max_tokens=3)

    assert none.choices[0].message.content == PARIS
    assert auto["usage"]["completion_tokens"] <= 3


async def test_grammar_in_the_body_holds(worker: launch.Launched) -> None:
    """A grammar decides what is said, and the answer ends where it ends."""
    told = await sent(
        worker, "/v1/completions", prompt="Say", grammar='root ::= "yes" | "no"', max_tokens=20
    )

    assert told["choices"][0]["text"] in ("yes", "no")
    assert told["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("root ::= [", "invalid_grammar"),
        ('tree ::= "a"', "invalid_grammar"),
        ("root ::= root", "invalid_grammar"),
        ("root ::= " + "(" * 9999, "unsupported_grammar"),
        ('root ::= "a"{2,1}', "unsupported_grammar"),
        (
            f'root ::= "{")" * 80_000}" | {"(" * 80_000}"a"{")" * 80_000}',
            "unsupported_grammar",
        ),
        ("root ::= " + '"a"? ' * 300, "unsupported_grammar"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_bad_grammar_is_the_clients(
    worker: launch.Launched, path: str, rule: str, code: str
) -> None:
    """A grammar that is none, or would end the worker, is a 400, and the worker serves on."""
    error = await refused(worker, path, messages=ask("Hi"), prompt="Hi", grammar=rule)

    assert (error["code"], error["param"]) == (code, "grammar")
    assert (await chat(worker)).choices[0].message.content == PARIS
