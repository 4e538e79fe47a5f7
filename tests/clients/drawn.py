"""Pictures as clients send them, and looks at those that they get."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageChops

PNG = b"\x89PNG\r\n\x1a\n"


def picture(width: int = 64, height: int = 64) -> bytes:
    """Draw a slope of colours as a PNG."""
    image = Image.radial_gradient("L").resize((width, height))
    return as_png(Image.merge("RGB", [image, ImageChops.invert(image), image]))


def hole(width: int = 64, height: int = 64) -> bytes:
    """Draw OpenAI's mask: what is transparent, the left half, is to be painted anew."""
    image = Image.new("RGBA", (width, height), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    return as_png(image)


def as_png(image: Image.Image) -> bytes:
    to = io.BytesIO()
    image.save(to, "PNG")
    return to.getvalue()


def decoded(text: str) -> Image.Image:
    """Decode bare base64, strictly."""
    return opened(base64.b64decode(text, validate=True))


def opened(raw: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(raw))
    image.load()
    return image


def is_kept_outside(before: Image.Image, after: Image.Image) -> bool:
    """Tell whether only the left half, that of `hole`, has changed."""
    width, height = before.size
    changed = ImageChops.difference(before.convert("RGB"), after.convert("RGB"))
    return (
        changed.crop((width // 2, 0, width, height)).getbbox() is None
        and changed.crop((0, 0, width // 2, height)).getbbox() is not None
    )
