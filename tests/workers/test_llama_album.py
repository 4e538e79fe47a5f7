"""What is kept of pictures between the turns of a chat."""

from __future__ import annotations

import numpy as np

from workers.llama.album import Album, Encoding, Item, Look, Media, PictureId, cells, positions

KIB = 1024
TEN_FLOATS = 40  # bytes


def encoding(number: float) -> Encoding:
    return np.full(10, number, np.float32)


def slices(name: str, count: int = 2) -> list[Item]:
    """Make what stands for a picture: a token before, between and behind its slices."""
    media = [Media(PictureId(name.encode()), n, 9, 3, "outline", "pixels") for n in range(count)]
    return [1, *(item for one in media for item in (one, 2))]


def kept(album: Album, name: str) -> None:
    """Take a picture in, with all its encodings."""
    items = slices(name)
    album.begin(PictureId(name.encode()), Look(items, 640, 480))
    for item in items:
        if isinstance(item, Media):
            album.keep(item, encoding(item.number))


def test_a_picture_is_whole_when_its_last_slice_is_encoded() -> None:
    """Until then it must be looked at again; after, nothing of it but its encodings is held."""
    album, name = Album(KIB), PictureId(b"one")
    first, second = [item for item in slices("one") if isinstance(item, Media)]
    album.begin(name, Look(slices("one"), 640, 480))
    album.keep(first, encoding(0))
    assert album.look(name) is None

    album.keep(second, encoding(1))

    look = album.look(name)
    assert look is not None
    assert (look.width_px, look.height_px) == (640, 480)
    assert list(look.items) == slices("one")
    found = [item for item in look.items if isinstance(item, Media)]
    assert [media.pixels for media in found] == [None, None]
    assert [media.encoding[0] for media in found if media.encoding is not None] == [0, 1]


def test_what_was_used_longest_ago_goes_first() -> None:
    """The bound is in bytes, and holds whatever comes."""
    album = Album(4 * TEN_FLOATS)
    kept(album, "one")
    kept(album, "two")
    album.look(PictureId(b"one"))

    kept(album, "three")

    there = [album.look(PictureId(name)) is not None for name in (b"one", b"two", b"three")]
    assert there == [True, False, True]
    assert album.size_bytes == 4 * TEN_FLOATS


def test_an_album_without_room_keeps_nothing() -> None:
    """With a bound of 0 every picture is computed anew, and a look back hurts nobody."""
    album = Album(0)

    kept(album, "one")

    assert album.size_bytes == 0
    assert album.look(PictureId(b"one")) is None
    assert album.encoding(next(i for i in slices("one") if isinstance(i, Media))) is None


def test_equal_is_what_shows_the_same() -> None:
    """Slices are told apart by their picture and their place in it, and by nothing else."""
    picture, other = slices("one"), slices("two")
    bare = [item.bare if isinstance(item, Media) else item for item in picture]

    assert bare == picture
    assert picture[1] != picture[3]
    assert picture[1] != other[1]


def test_cells_and_positions_are_counted_apart() -> None:
    """Where positions have several dimensions, a picture takes more cells than positions."""
    assert (cells(slices("one")), positions(slices("one"))) == (3 + 18, 3 + 6)
