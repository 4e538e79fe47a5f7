"""A chat request into what the engine needs: prompt, pictures, grammar, tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workers import pictures, wire
from workers.llama import gbnf, grammar
from workers.llama.bodies import ChatBody, Message, NamedChoice, SamplingBody, ToolBody
from workers.llama.eyes import Shown, is_low
from workers.llama.template import ChatTemplate, TemplateFailed
from workers.llama.tools import (
    ForcedScanner,
    FreeScanner,
    PlainScanner,
    Scanner,
    Tool,
    forced_grammar,
    preamble,
)
from workers.messages import ImagePart

ROLES = {"developer": "system"}  # OpenAI's newer name
Mark = Callable[[int], str]
"""Says what stands for the picture of that number in the text of a prompt."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat request asks for."""

    prompt: str  # with the mark of each picture
    shown: Sequence[Shown] = ()
    grammar: str | None = None
    free_tools: frozenset[str] = field(default_factory=frozenset)  # the model may call these
    must_call: bool = False

    def scanner(self) -> Scanner:
        if self.must_call:
            return ForcedScanner()
        return FreeScanner(self.free_tools) if self.free_tools else PlainScanner()


def read(
    body: ChatBody,
    template: ChatTemplate,
    mark: Mark | None,
    *,
    allow_grammar: bool = False,
    max_images: int = 0,
) -> Conversation:
    """Make sense of a request; takes its pictures from base64, no further. Raises ApiError 400.

    `mark` says what stands for a picture in the prompt; None: the model reads none.
    """
    given = foreign_grammar(body, allowed=allow_grammar)
    offered = _offered_tools(body)
    must_call = body.tool_choice == "required" or isinstance(body.tool_choice, NamedChoice)
    found: list[Shown] = []
    messages = [_message(m, n, mark, found) for n, m in enumerate(body.messages)]
    if mark is not None and len(found) > max_images:
        raise wire.bad_request(
            f"{len(found)} pictures are too many; send at most {max_images} in one request",
            param="messages",
            code="too_many_images",
        )
    tools = [tool.model_dump(exclude_none=True) for tool in offered] or None
    as_tools = [_tool(tool) for tool in offered]
    if tools and not template.knows_tools:
        messages = _with_preamble(messages, preamble(as_tools))
    try:
        prompt = template.render(messages, tools=tools, more=body.chat_template_kwargs)
    except TemplateFailed as error:
        raise wire.bad_request(str(error), param="messages") from None
    return Conversation(
        prompt,
        found,
        _grammar(body, given, as_tools, must_call=must_call),
        frozenset(tool.name for tool in as_tools),
        must_call,
    )


def _offered_tools(body: ChatBody) -> list[ToolBody]:
    """Give the tools that the model shall know of. Raises ApiError 400."""
    tools, choice = body.tools or [], body.tool_choice
    if choice == "none":
        return []
    if choice == "required" and not tools:
        raise wire.bad_request("tool_choice: required needs tools", param="tool_choice")
    if isinstance(choice, NamedChoice):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
        if not tools:
            raise wire.bad_request(
                f"tool_choice: no tool is called {choice.function.name}", param="tool_choice"
            )
    return tools


def _tool(body: ToolBody) -> Tool:
    function = body.function
    return Tool(
        function.name, function.parameters or grammar.ANY_OBJECT, function.description or ""
    )


def _message(
    message: Message, number: int, mark: Mark | None, found: list[Shown]
) -> dict[str, Any]:
    """Make a template's message: one string, the mark of each picture, arguments as objects."""
    plain = message.model_dump(exclude={"content"}, exclude_none=True)
    plain["role"] = ROLES.get(message.role, message.role)
    plain["content"] = _text(message, number, mark, found)
    for call in plain.get("tool_calls", ()):
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            function["arguments"] = _as_object(function["arguments"])
    return plain


def _text(message: Message, number: int, mark: Mark | None, found: list[Shown]) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    param = f"messages.{number}.content"
    texts: list[str] = []
    is_after_text = False
    for part in message.content:
        if not isinstance(part, ImagePart):
            # llama.cpp's way: a line between two texts, nothing around a picture
            texts += ["\n", part.text] if is_after_text else [part.text]
            is_after_text = True
            continue
        if mark is None:
            raise wire.bad_request(
                "this model reads no pictures; send text only, or give the model an mmproj",
                param=param,
                code="images_not_supported",
            )
        raw = pictures.bytes_of(part.url, param=param)
        texts.append(mark(len(found)))
        found.append(Shown.of(raw, param, is_low=is_low(part.detail, param=param)))
        is_after_text = False
    return "".join(texts)


def _as_object(arguments: str) -> object:
    """Templates write arguments with `tojson`, which would quote a string once more."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _with_preamble(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Put the text into the system message, or before everything as one."""
    first = messages[0]
    if first["role"] != "system":
        return [{"role": "system", "content": text}, *messages]
    return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]


def foreign_grammar(body: SamplingBody, *, allowed: bool) -> str | None:
    """Give the grammar that the client wrote, if any. Raises ApiError 400."""
    if body.grammar is None:
        return None
    if not allowed:
        raise wire.bad_request(
            "this model takes no grammar, for a bad one would stall or end its worker; use"
            " response_format with json_schema, or set allow_grammar: true in its options",
            param="grammar",
            code="grammar_not_allowed",
        )
    try:
        return gbnf.check_foreign(body.grammar)
    except gbnf.Unsupported as error:
        raise wire.bad_request(str(error), param="grammar", code="unsupported_grammar") from None


def _grammar(
    body: ChatBody, given: str | None, tools: Sequence[Tool], *, must_call: bool
) -> str | None:
    """Choose the grammar of the answer, if any. Raises ApiError 400 for what it cannot enforce."""
    schema = _schema(body)
    if given is not None and (schema is not None or must_call):
        raise wire.bad_request("grammar goes with neither response_format nor tool_choice")
    if schema is not None and tools and not must_call:
        raise wire.bad_request(
            "response_format and tools do not go together here; set tool_choice: none",
            param="response_format",
        )
    param = "tools" if must_call else "response_format"
    try:
        if must_call:
            return forced_grammar(tools)
        return given if schema is None else grammar.of_schema(schema)
    except gbnf.Unsupported as error:
        raise wire.bad_request(str(error), param=param, code="unsupported_schema") from None


def _schema(body: ChatBody) -> Mapping[str, object] | None:
    form = body.response_format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return form.bare_schema or grammar.ANY_OBJECT
    schema = form.json_schema.json_schema if form.json_schema else form.bare_schema
    if schema is None:
        raise wire.bad_request(
            "response_format: json_schema needs json_schema.schema", param="response_format"
        )
    return schema
