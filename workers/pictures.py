"""Bytes of any picture → an upright RGB picture, bounded in pixels and memory."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageOps

from workers import wire

MAX_PIXELS = 50_000_000
# no others: Pillow hands some of them, such as EPS, to programs of the system
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
EXIF_ORIENTATION = 0x0112
FIRST_TURNED_ORIENTATION = 5  # 5 to 8 swap width and height
Convert = Callable[[Image.Image], Image.Image]
_DATA_URI = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture; `image` may be smaller than the upright original."""

    image: Image.Image  # mode RGB, or what `convert` made of it
    width: int  # px of the upright original
    height: int


def from_url(
    url: str, *, param: str, side_px: int | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode a `data:` URI or bare base64. Raises ApiError 400, for every other address too."""
    return decode(bytes_of(url, param=param), param=param, side_px=side_px, max_pixels=max_pixels)


def bytes_of(url: str, *, param: str) -> bytes:
    """Take the bytes out of a `data:` URI or bare base64. Raises ApiError 400."""
    found = _DATA_URI.match(url)
    if not found and re.match(r"[a-z][a-z0-9+.-]*:", url[:32], re.IGNORECASE):
        raise wire.bad_request(
            "only data: URIs with base64 are accepted as pictures; nothing is fetched or read"
            " from disk. Send data:image/png;base64,…",
            param=param,
            code="unsupported_image_url",
        )
    try:
        return base64.b64decode(url[found.end() if found else 0 :], validate=False)
    except (binascii.Error, ValueError):
        raise wire.bad_request(
            "the picture is not valid base64", param=param, code="invalid_base64"
        ) from None


def decode(
    raw: bytes,
    *,
    param: str,
    side_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    convert: Convert | None = None,
) -> Picture:
    """Decode a picture of one of `FORMATS`; the first frame of an animation.

    `side_px`: what the model will look at; a JPEG may be decoded at a fraction of its size as
    long as both sides stay at least that long. `convert`: `to_rgb` unless told otherwise. Raises
    ApiError 400: `invalid_image`, or `image_too_large` from the header alone, before a pixel is
    decoded.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels // 2  # Pillow raises above twice this
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _decode(raw, side_px, max_pixels, param, convert or to_rgb)
    except wire.ApiError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise _too_large("it", max_pixels, param) from None
    except Exception as error:  # noqa: BLE001  # decoders raise nearly everything on bad bytes
        raise wire.bad_request(
            f"the picture cannot be decoded ({type(error).__name__}); send a whole PNG, JPEG,"
            " WebP or GIF",
            param=param,
            code="invalid_image",
        ) from None


def _decode(
    raw: bytes, side_px: int | None, max_pixels: int, param: str, convert: Convert
) -> Picture:
    image: Image.Image = Image.open(io.BytesIO(raw), formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(f"{width}x{height}", max_pixels, param)
    is_turned = image.getexif().get(EXIF_ORIENTATION, 1) >= FIRST_TURNED_ORIENTATION
    if is_turned and image.format != "TIFF":  # of a TIFF Pillow tells the upright size
        width, height = height, width
    if image.format in ("JPEG", "MPO") and side_px is not None:
        image.draft("RGB", (side_px, side_px))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # a copy would take as much again
    return Picture(convert(image), width, height)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: alpha over white, 16-bit grey scaled and not clipped."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return image.convert("F").point(lambda value: value / 257).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image)
        return paper
    return image.convert("RGB")


def to_mask(image: Image.Image) -> Image.Image:
    """Convert an edit mask to L, white where to paint anew.

    OpenAI's masks say it by transparency; a mask without any is read by its brightness.
    """
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return ImageOps.invert(alpha)
    return to_rgb(image).convert("L")


def _too_large(what: str, max_pixels: int, param: str) -> wire.ApiError:
    told = f"the picture is too large: {what} is over {max_pixels} pixels; send a smaller one"
    return wire.bad_request(told, param=param, code="image_too_large")
