"""Pictures of any kind become upright RGB ones, within bounds."""

from __future__ import annotations

import base64

import pytest
from PIL import Image

from tests.workers.drawn import encoded
from workers import pictures, wire


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (2, 2), 128), (128, 128, 128)),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("P", (2, 2)), (0, 0, 0)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("LA", (2, 2), (0, 0)), (255, 255, 255)),
        (Image.new("I;16", (2, 2), 32768), (127, 127, 127)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_becomes_rgb(image: Image.Image, expected: tuple[int, int, int]) -> None:
    """Grey is spread, transparency lies on white, 16 bits are scaled and not clipped."""
    kind = "TIFF" if image.mode == "CMYK" else "PNG"
    decoded = pictures.decode(encoded(image, kind), param="image").image

    assert decoded.mode == "RGB"
    assert all(abs(a - b) <= 1 for a, b in zip(decoded.getpixel((0, 0)), expected, strict=True))


def test_sixteen_bits_with_a_transparent_grey_are_scaled_too() -> None:
    """A transparency chunk does not make 16-bit grey white."""
    raw = encoded(Image.new("I;16", (2, 2), 32768), transparency=0)

    assert pictures.decode(raw, param="image").image.getpixel((0, 0)) == (127, 127, 127)


def test_a_photo_is_turned_upright_and_its_size_told_upright() -> None:
    """EXIF orientation 6 is a quarter turn: width and height change places."""
    exif = Image.Exif()
    exif[pictures.EXIF_ORIENTATION] = 6
    raw = encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif.tobytes())
    picture = pictures.decode(raw, param="image")

    assert (picture.width, picture.height) == picture.image.size == (20, 40)


def test_a_turned_tiff_is_not_turned_twice() -> None:
    """Pillow tells a TIFF's size upright already."""
    raw = encoded(Image.new("RGB", (40, 20)), "TIFF", tiffinfo={pictures.EXIF_ORIENTATION: 6})
    picture = pictures.decode(raw, param="image")

    assert (picture.width, picture.height) == picture.image.size


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "invalid_image"),
        (b"hello", 400, "invalid_image"),
        (encoded(Image.effect_noise((64, 64), 50))[:1000], 400, "invalid_image"),
        (encoded(Image.new("1", (9000, 9000))), 400, "image_too_large"),
    ],
)
def test_what_is_no_picture_or_too_large_is_told(raw: bytes, status: int, code: str) -> None:
    """The error is the client's to mend, and comes before a pixel of a bomb is decoded."""
    with pytest.raises(wire.ApiError) as caught:
        pictures.decode(raw, param="image")

    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("url", ["http://x/a.png", "file:///etc/passwd", "ftp://x", "gopher:x"])
def test_nothing_is_fetched(url: str) -> None:
    """Only data: URIs and bare base64 are pictures."""
    with pytest.raises(wire.ApiError) as caught:
        pictures.from_url(url, param="image")

    assert caught.value.code == "unsupported_image_url"


@pytest.mark.parametrize("head", ["", "data:;base64,", "data:image/png;charset=utf-8;base64,"])
def test_base64_with_and_without_its_head(head: str) -> None:
    """Clients send both."""
    text = head + base64.b64encode(encoded(Image.new("RGB", (3, 2)))).decode()

    assert pictures.from_url(text, param="image").image.size == (3, 2)
