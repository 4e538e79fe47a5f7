"""Messages to a prompt, by the model's own chat template. Pure.

Templates are Jinja in the dialect of Hugging Face's `apply_chat_template`, and come with the
model file: they run in a sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]
"""As OpenAI's, with text (and picture markers) as one string in `content`."""

_PROBE = "needle-4711"
_USER: Message = {"role": "user", "content": "Hi"}


class TemplateFailed(ValueError):
    """The template refused the messages, or is broken."""


class ChatTemplate:
    """One template, compiled."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile. Raises TemplateFailed."""
        self.source = source
        self.knows_tools = "tools" in source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: (
            datetime.now().astimezone().strftime(form)
        )
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TemplateFailed(f"the chat template is not valid: {error}") from error
        self._wants_parts = not self._says([{"role": "user", "content": _PROBE}])
        self._takes_system = self._says(
            [{"role": "system", "content": self._content(_PROBE)}, self._shaped(_USER)]
        )

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> str:
        """Make the prompt, up to where the assistant goes on. Raises TemplateFailed."""
        given = messages if self._takes_system else _without_system(messages)
        return self._render([self._shaped(m) for m in given], tools, more or {})

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None,
        more: Mapping[str, object],
    ) -> str:
        try:
            return self._template.render(
                **{"add_generation_prompt": True, **more, **self._tokens},
                messages=messages,
                tools=tools,
            )
        except Exception as error:  # a template can raise anything that Python can
            raise TemplateFailed(f"the model's chat template refuses this: {error}") from error

    def _says(self, messages: Sequence[Message]) -> bool:
        """Find out whether the template passes on what these messages say."""
        try:
            return _PROBE in self._render(messages, None, {})
        except TemplateFailed:
            return False

    def _shaped(self, message: Message) -> Message:
        return {**message, "content": self._content(message.get("content") or "")}

    def _content(self, text: str) -> object:
        """Give a text as the template reads it: some want a list of parts."""
        return [{"type": "text", "text": text}] if self._wants_parts else text


def _without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Put the system message into the next one, for templates that know of none (Gemma's)."""
    if len(messages) == 1 or messages[0].get("role") != "system":
        return messages
    first, second, *others = messages
    return [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *others]


class _GenerationTag(jinja2.ext.Extension):
    """Passes over ``{% generation %}``, which marks training data."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own declaration

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(value: object, indent: int | None = None, **more: Any) -> str:
    """Write JSON as Hugging Face does: Jinja's own filter escapes for HTML."""
    return json.dumps(value, indent=indent, **{"ensure_ascii": False, **more})
