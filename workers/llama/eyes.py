"""What a client sends as pictures, into what stands in the prompt for them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from PIL import Image

from workers import memory, pictures, wire
from workers.llama import answers
from workers.llama.album import Item, Look, Media, PictureId, cells
from workers.llama.options import LlamaOptions
from workers.llama.vision import CannotRead, Vision
from workers.llama.vocabulary import Vocabulary

LOW_DETAIL_PX = 512  # OpenAI's bound of `detail: low`, for the longer side
MOST_SEEN_PIXELS = 2048 * 2048  # no projector looks closer, and the engine's resizing is slow
NOTHING_SEEN: Mapping[PictureId, Look] = MappingProxyType({})
DETAILS = ("auto", "low", "high")
SQUARES = frozenset(("mlp", "mlp_norm"))  # projectors that look at one square of a fixed size
PINPOINTS = "clip.vision.image_grid_pinpoints"  # of those, LLaVA 1.6's look closer


@dataclass(frozen=True)
class Shown:
    """A picture as it came, where in the request, and how closely to look at it."""

    raw: bytes
    param: str
    is_low: bool = False

    @cached_property
    def id(self) -> PictureId:
        return PictureId(hashlib.sha256(bytes([self.is_low]) + self.raw).digest())


def is_low(detail: str | None, *, param: str) -> bool:
    """Read OpenAI's `detail`. Raises ApiError 400."""
    if detail is not None and detail not in DETAILS:
        raise wire.bad_request(
            f"detail {detail[:20]!r} is unknown; use one of {', '.join(DETAILS)}", param=param
        )
    return detail == "low"


class Eyes:
    """Looks at the pictures of requests; any thread may use it."""

    def __init__(
        self, vision: Vision, vocabulary: Vocabulary, options: LlamaOptions, n_ctx: int
    ) -> None:
        self.vision = vision
        self._vocabulary = vocabulary
        self._options = options
        self._n_ctx = n_ctx
        self._side_px = _square_px(vision)
        # one picture at a time: while it is decoded, a large one takes hundreds of megabytes
        self._lock = threading.Lock()
        self._decoded_count = 0

    @property
    def counts(self) -> dict[str, int]:
        """Tell what pictures have cost so far: pictures decoded, slices of them encoded."""
        return {"images_decoded": self._decoded_count, "slices_encoded": self.vision.encoded}

    def prompt(
        self, text: str, shown: Sequence[Shown], looks: Mapping[PictureId, Look] = NOTHING_SEEN
    ) -> list[Item]:
        """Tokenise a text with one marker for each picture. Raises ApiError 400.

        Pictures are taken one by one, so that what does not fit into the context ends it before
        the next one is decoded. `looks`: those that have been looked at already.
        """
        texts = text.split(self.vision.marker)
        if len(texts) != len(shown) + 1:
            raise wire.bad_request(
                "the model's chat template leaves out a picture; move it to a user's message",
                param="messages",
            )
        tokens = [self._tokens(part) for part in texts]
        if self._vocabulary.needs_bos(text):
            tokens[0].insert(0, self._vocabulary.bos)
        used = sum(map(len, tokens))
        self._refuse_too_long(used, shown)
        items: list[Item] = [*tokens[0]]
        seen = dict(looks)
        left_pixels = self._options.max_request_pixels
        for number, picture in enumerate(shown, start=1):
            look = seen.get(picture.id) or self.look(picture, left_pixels)
            seen[picture.id] = look
            left_pixels -= look.width_px * look.height_px
            used += cells(look.items)
            self._refuse_too_long(used, shown)
            items += [*look.items, *tokens[number]]
        if isinstance(items[-1], Media):
            raise wire.bad_request("the prompt must not end with a picture", param="messages")
        return items

    def _tokens(self, text: str) -> list[int]:
        return self._vocabulary.tokens(text, add_special=False, parse_special=True)

    def _refuse_too_long(self, used: int, shown: Sequence[Shown]) -> None:
        answers.refuse_too_long(used, self._n_ctx, "messages", pictures=len(shown))

    def look(self, shown: Shown, left_pixels: int) -> Look:
        """Give what stands for a picture. Raises ApiError 400.

        `left_pixels`: no more of it may be decoded; what is known already costs none.
        """
        known = self.vision.album.look(shown.id)
        if known is not None:
            return known
        with self._lock:
            picture = self._decoded(shown)
            if picture.width * picture.height > left_pixels:
                raise wire.bad_request(
                    "the pictures of one request have more than"
                    f" {self._options.max_request_pixels} pixels together; send smaller ones",
                    param=shown.param,
                    code="image_too_large",
                )
            look = Look(self._items(shown, picture.image), picture.width, picture.height)
            del picture
        if look.width_px * look.height_px > MOST_SEEN_PIXELS:
            memory.return_freed()
        self.vision.album.begin(shown.id, look)
        return look

    def _decoded(self, shown: Shown) -> pictures.Picture:
        self._decoded_count += 1
        return pictures.decode(
            shown.raw,
            param=shown.param,
            side_px=self._bounding_side_px(shown),
            max_pixels=self._options.max_image_pixels,
        )

    def _items(self, shown: Shown, image: Image.Image) -> list[Item]:
        try:
            return self.vision.items(shown.id, self._reduced(image, shown))
        except CannotRead:
            raise wire.bad_request(
                "the model cannot make tokens of this picture; send a smaller one",
                param=shown.param,
                code="invalid_image",
            ) from None

    def _bounding_side_px(self, shown: Shown) -> int:
        side_px = self._side_px or round(MOST_SEEN_PIXELS**0.5)
        return min(side_px, LOW_DETAIL_PX) if shown.is_low else side_px

    def _reduced(self, image: Image.Image, shown: Shown) -> Image.Image:
        """Shrink a picture to what the model can see of it."""
        side_px = self._bounding_side_px(shown)
        if shown.is_low or self._side_px:
            image.thumbnail((side_px, side_px))
        elif (scale := (MOST_SEEN_PIXELS / (image.width * image.height)) ** 0.5) < 1:
            image.thumbnail((round(image.width * scale) or 1, round(image.height * scale) or 1))
        return image


def _square_px(vision: Vision) -> int | None:
    """Give the side of the one square that a projector looks at; None for all others."""
    keys = vision.header.keys
    if keys.get("clip.projector_type") not in SQUARES or PINPOINTS in keys:
        return None
    return vision.header.number("vision.image_size") or None
