"""The shapes of the requests; a null is as good as nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field

from workers import wire
from workers.messages import Content, StreamOptions

MAX_CHOICES = 8
MAX_STOPS = 16
MAX_INPUTS = 2048  # OpenAI's

TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]


class SamplingBody(wire.Body):
    """What chat and completion requests have in common."""

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), wire.or_default(1)] = 1
    max_tokens: Annotated[int, Field(ge=-1)] | None = None  # -1: up to the end of the context
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: int | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    seed: int | None = None  # -1: random, as none
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    grammar: str | None = None  # GBNF, as llama-server takes it, where the options allow it
    stream: wire.Flag = False
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class Message(wire.Body):
    """One turn; what else is in it goes to the template as it is."""

    model_config = ConfigDict(extra="allow")

    role: Annotated[str, Field(min_length=1)]
    content: Content | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Function(wire.Body):
    """What a tool is called and takes."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolBody(wire.Body):
    """A tool on offer."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(wire.Body):
    """The tool that must be called."""

    name: str


class NamedChoice(wire.Body):
    """`tool_choice` with a name."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchemaFormat(wire.Body):
    """The schema of an answer; `schema` is taken by pydantic."""

    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ResponseFormat(wire.Body):
    """What the answer must be; `schema` with json_object is llama.cpp's own older way."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    bare_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ChatBody(SamplingBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=-1)] | None = None
    logprobs: wire.Flag = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(SamplingBody):
    """POST /v1/completions."""

    prompt: str | list[TokenId] | list[str] | list[list[TokenId]]
    echo: wire.Flag = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        return as_texts(self.prompt)


class EmbeddingsBody(wire.Body):
    """POST /v1/embeddings."""

    model: str | None = None
    input: str | list[TokenId] | list[str] | list[list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        return as_texts(self.input)


class TextDocument(wire.Body):
    """A document as an object."""

    text: str


class RerankBody(wire.Body):
    """POST /v1/rerank, after Jina and Cohere."""

    model: str | None = None
    query: str
    documents: Annotated[list[str | TextDocument], Field(min_length=1, max_length=MAX_INPUTS)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: wire.Flag = False


class TokenizeBody(wire.Body):
    """POST /tokenize, as llama-server's."""

    content: str
    add_special: wire.Flag = False
    parse_special: Annotated[bool, wire.or_default(default=True)] = True


class DetokenizeBody(wire.Body):
    """POST /detokenize, as llama-server's."""

    tokens: list[TokenId]


def as_texts(given: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    """Make a list of texts, each a string or token ids, of the four shapes OpenAI allows."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    return list(cast("list[str | list[int]]", given))
