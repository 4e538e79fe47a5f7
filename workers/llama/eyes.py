"""What a client sends as pictures, into what stands in the prompt for them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

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


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as it came, where in the request, and how closely to look at it."""

    id: PictureId
    raw: bytes
    param: str
    is_low: bool

    @classmethod
    def of(cls, raw: bytes, param: str, *, is_low: bool = False) -> Self:
        """Hash it, which takes a while for megabytes."""
        content = hashlib.sha256(bytes([is_low]))
        content.update(raw)
        return cls(PictureId(content.digest()), raw, param, is_low)


def is_low(detail: str | None, *, param: str) -> bool:
    """Read OpenAI's `detail`. Raises ApiError 400."""
    if detail is not None and detail not in DETAILS:
        raise wire.bad_request(
            f"detail {detail[:20]!r} is unknown; use one of {', '.join(DETAILS)}", param=param
        )
    return detail == "low"


class Eyes:
    """Looks at the pictures of requests, in the order they came, on a thread of its own.

    One at a time: while it is decoded, a large one takes hundreds of megabytes. Those that wait
    take no thread from anybody, and are never decoded when their client has left.
    """

    def __init__(
        self, vision: Vision, vocabulary: Vocabulary, options: LlamaOptions, n_ctx: int
    ) -> None:
        self.vision = vision
        self._vocabulary = vocabulary
        self._options = options
        self._n_ctx = n_ctx
        self._side_px = _square_px(vision)
        self._mark = re.compile(re.escape(vision.marker) + r"(\d+);")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._decoded_count = 0

    @property
    def counts(self) -> dict[str, int]:
        """Tell what pictures have cost so far: pictures decoded, slices of them encoded."""
        return {"images_decoded": self._decoded_count, "slices_encoded": self.vision.encoded}

    async def prompt(
        self,
        text: str,
        shown: Sequence[Shown],
        looks: Mapping[PictureId, Look] = NOTHING_SEEN,
        *,
        param: str = "messages",
    ) -> list[Item]:
        """Tokenise a text that has the mark of each picture. Raises ApiError 400.

        Pictures are taken one by one, so that what does not fit into the context ends it before
        the next one is decoded. `looks`: those that have been looked at already. `param`: what
        the request calls that which may be too long.
        """
        marks, tokens = await asyncio.to_thread(self._parted, text)
        if set(marks) != set(range(len(shown))):
            raise wire.bad_request(
                "the model's chat template leaves out a picture; move it to a user's message",
                param=param,
            )
        used = sum(map(len, tokens))
        self._refuse_too_long(used, shown, param)
        items: list[Item] = [*tokens[0]]
        seen, left_pixels = dict(looks), self._options.max_request_pixels
        for mark, after in zip(marks, tokens[1:], strict=True):
            picture = shown[mark]
            if picture.id not in seen:
                seen[picture.id] = look = await self.look(picture, left_pixels)
                left_pixels -= look.width_px * look.height_px
            used += cells(seen[picture.id].items)
            self._refuse_too_long(used, shown, param)
            items += [*seen[picture.id].items, *after]
        if isinstance(items[-1], Media):
            raise wire.bad_request("the prompt must not end with a picture", param=param)
        return items

    def _parted(self, text: str) -> tuple[list[int], list[list[int]]]:
        """Part a text at its marks: the numbers of the pictures, and the tokens around them."""
        parts = self._mark.split(text)
        tokens = [self._tokens(part) for part in parts[::2]]
        if self._vocabulary.needs_bos(text):
            tokens[0].insert(0, self._vocabulary.bos)
        return [int(number) for number in parts[1::2]], tokens

    def _tokens(self, text: str) -> list[int]:
        return self._vocabulary.tokens(text, add_special=False, parse_special=True)

    def _refuse_too_long(self, used: int, shown: Sequence[Shown], param: str) -> None:
        answers.refuse_too_long(used, self._n_ctx, param, pictures=len(shown))

    async def look(self, shown: Shown, left_pixels: int) -> Look:
        """Give what stands for a picture. Raises ApiError 400.

        `left_pixels`: what the request may still show. A known picture counts too, or a chat
        would go on until the model is loaded anew, and no further.
        """
        known = self.vision.album.look(shown.id)
        if known is None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._looked, shown, left_pixels)
        self._refuse_too_large(known.width_px * known.height_px, left_pixels, shown)
        return known

    def _looked(self, shown: Shown, left_pixels: int) -> Look:
        picture = self._decoded(shown)
        self._refuse_too_large(picture.width * picture.height, left_pixels, shown)
        look = Look(self._items(shown, picture.image), picture.width, picture.height)
        del picture
        if look.width_px * look.height_px > MOST_SEEN_PIXELS:
            memory.return_freed()
        self.vision.album.begin(shown.id, look)
        return look

    def _refuse_too_large(self, pixels: int, left_pixels: int, shown: Shown) -> None:
        if pixels > left_pixels:
            raise wire.bad_request(
                "the pictures of one request have more than"
                f" {self._options.max_request_pixels} pixels together; send smaller ones",
                param=shown.param,
                code="image_too_large",
            )

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
