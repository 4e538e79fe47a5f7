"""What is read of a request."""

from __future__ import annotations

from pydantic import Field, JsonValue, NonNegativeFloat, NonNegativeInt

from workers import wire


class Misbehave(wire.Body):
    """The switches of one request, in the body's field `echo`."""

    tokens: int | None = None  # how many to say, instead of the words of the echo
    serve_s: NonNegativeFloat = 0  # before the first token
    token_s: NonNegativeFloat = 0  # between two
    gate: str | None = None  # wait here before the first byte
    gate_after: int = 0  # wait there after that many tokens instead
    die_after: int | None = None  # exit after that many tokens; 0 = before the first byte
    die_saying: str | None = None  # abort with these last words; at once without `die_after`
    hang_after: int | None = None
    status: int = 200
    says: str | None = None  # a line on stdout, when it is heard
    out_of_memory: bool = False  # answer as an engine that had no memory for this request
    allocate_bytes: NonNegativeInt = 0  # hold so much more while it is served
    progress: dict[str, JsonValue] | None = None  # what /progress tells of a picture meanwhile

    @property
    def last_token(self) -> int | None:
        """Tell after how many tokens the process dies, if it does."""
        return 0 if self.die_after is None and self.die_saying is not None else self.die_after


class AnyBody(wire.Body):
    """What every request may say."""

    model: str = "echo"
    echo: Misbehave = Misbehave()


class TextBody(AnyBody):
    """What is read of a chat or completion request."""

    messages: list[dict[str, JsonValue]] = Field(default_factory=list)
    prompt: str = ""
    stream: wire.Flag = False

    def heard(self) -> str:
        return str(self.messages[-1].get("content")) if self.messages else self.prompt


class PictureBody(AnyBody):
    """What is read of a request for a picture."""

    response_format: str | None = None


class EmbeddingsBody(AnyBody):
    """What is read of an embeddings request."""

    input: str | list[str]
