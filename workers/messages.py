"""What the messages of OpenAI chat requests are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from workers import wire


class StreamOptions(wire.Body):
    """What a stream shall say beside the answer."""

    include_usage: wire.Flag = False


class TextPart(wire.Body):
    """Text between pictures."""

    type: Literal["text"]
    text: str


class ImageUrl(wire.Body):
    """Where a picture is: only in the URL itself; and how closely to look at it."""

    url: str
    detail: str | None = None


class ImagePart(wire.Body):
    """A picture between texts."""

    type: Literal["image_url"]
    image_url: ImageUrl | str

    @property
    def url(self) -> str:
        return self.image_url if isinstance(self.image_url, str) else self.image_url.url

    @property
    def detail(self) -> str | None:
        return None if isinstance(self.image_url, str) else self.image_url.detail


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Part], Tag("parts")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "parts"),
]
