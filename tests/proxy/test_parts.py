"""Where the pictures of a body stand, and what comes into their places."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.body import (
    Body,
    Change,
    Edit,
    Inline,
    Odd,
    Picture,
    Reference,
    Remote,
    Span,
    body_of,
)
from proxy.body.fields import items
from proxy.body.lexer import JsonPeek
from proxy.body.parts import pictures_in
from proxy.body.skeleton import Skeleton
from proxy.errors import BodyTooLarge
from tests.proxy.test_body import BLANK, INDENT, JSON
from tests.proxy.test_body_long import followed

URI = "data:image/png;base64,"
SMALL, LARGE = URI + "QUJD", URI + "QUJD" * 1200
NAME = "file-" + "0a" * 16
AT = "messages.0.content.0"


def chat(*parts: object) -> dict[str, Any]:
    return {"model": "a", "messages": [{"role": "user", "content": list(parts)}]}


def told(document: object) -> bytes:
    return json.dumps(document, indent=1).encode()


def put(raw: bytes, pictures: Sequence[Picture], uri: str) -> bytes:
    """Put an address into the places of all pictures."""
    for one in reversed(pictures):
        new = one.before + uri.encode() + one.after
        raw = raw[: one.place.start] + new + raw[one.place.end :]
    return raw


def image_url(url: str, **more: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def wrapped(times: int, inner: object = NAME) -> dict[str, object]:
    """Make a part whose picture is named inside of so many objects."""
    for _ in range(times):
        inner = {"image_url": inner}
    return {"type": "image_url", "image_url": inner}


@pytest.mark.parametrize(
    ("part", "source", "after"),
    [
        (image_url(NAME), Reference(NAME), image_url("X")),
        (
            image_url(NAME, detail="low", x=[1]),
            Reference(NAME),
            image_url("X", detail="low", x=[1]),
        ),
        (
            {"image_url": NAME, "type": "image_url", "x": 1},
            Reference(NAME),
            {"image_url": "X", "type": "image_url", "x": 1},
        ),
        ({"type": "image_url", "image_url": {"file_id": "f"}}, Reference("f"), image_url("X")),
        (image_url("HTTPS://a.b/c"), Remote("HTTPS://a.b/c"), image_url("X")),
        (image_url("ftp://a.b/c"), Odd(), image_url("X")),
        (image_url("file:///etc/passwd"), Odd(), image_url("X")),
        (image_url(""), Odd(), image_url("X")),
        ({"type": "image_url", "image_url": 5}, Odd(), {"type": "image_url", "image_url": "X"}),
        ({"type": "input_image", "image_url": NAME}, Reference(NAME), image_url("X")),
        (
            {"type": "input_image", "file_id": NAME, "detail": "high"},
            Reference(NAME),
            image_url("X", detail="high"),
        ),
        ({"type": "image", "image_cid": "bafy1"}, Reference("bafy1"), image_url("X")),
        ({"type": "image_file", "file_id": NAME}, Reference(NAME), image_url("X")),
        (
            {"type": "image_file", "image_file": {"file_id": NAME, "detail": "low"}},
            Reference(NAME),
            image_url("X", detail="low"),
        ),
        ({"type": "image", "source": {"type": "base64", "data": "QUJD"}}, Odd(), image_url("X")),
        ({"type": "image_url"}, Odd(), image_url("X")),
        ({"type": "image_url", "image_url": {"": NAME}}, Odd(), wrapped(0, "X")),
        (wrapped(3), Reference(NAME), wrapped(3, "X")),
        (wrapped(4), Odd(), wrapped(3, "X")),
    ],
)
def test_every_form_of_a_picture_is_known(part: object, source: object, after: object) -> None:
    """It is told apart by where it leads, and becomes OpenAI's form, its detail as it was."""
    raw = told(chat(part, {"type": "text", "text": NAME}))
    (picture,) = pictures_in(Skeleton(raw))

    assert (picture.where, picture.source) == (AT, source)
    assert json.loads(put(raw, [picture], "X")) == chat(after, {"type": "text", "text": NAME})
    assert picture.part is not None
    assert json.loads(raw[picture.part.start : picture.part.end]) == part


@pytest.mark.parametrize("uri", [SMALL, LARGE, SMALL.replace("data", "DATA"), "QUJD" * 2000])
def test_a_picture_in_the_body_is_found_as_it_stands(uri: str) -> None:
    """Short or long; with the escapes of those who escape each slash."""
    for raw in (told(chat(image_url(uri))), told(chat(image_url(uri))).replace(b"/", b"\\/")):
        for text in (Skeleton(raw), followed(raw, [1000], 4096)):
            (one,) = pictures_in(text) if isinstance(text, Skeleton) else _ended(text).pictures()
            assert isinstance(one.source, Inline)
            assert json.loads(raw[one.source.text.start : one.source.text.end]) == uri


def _ended(text: JsonPeek) -> JsonPeek:
    text.end()
    return text


@pytest.mark.parametrize(
    ("document", "places"),
    [
        (
            {"input": [{"content": [{"type": "input_image", "file_id": NAME}]}]},
            ["input.0.content.0"],
        ),
        ({"input": "text", "messages": None}, []),
        ({"messages": [5, {"content": NAME}, {"content": [NAME, {"type": 5}]}]}, []),
        ({"image": NAME}, ["image"]),
        ({"images": [NAME, {"image_url": {"url": NAME}}, {"file_id": NAME}]}, list("012")),
        ({"image": {"url": NAME}, "mask": {"image_url": NAME}}, ["image", "mask"]),
    ],
)
def test_pictures_are_found_wherever_they_may_stand(document: object, places: list[str]) -> None:
    """In messages of chats and of responses, and in fields; what is no picture is passed by."""
    found = pictures_in(Skeleton(told(document)))

    wheres = [f"images.{one}" if one.isdigit() else one for one in places]
    assert [one.where for one in found] == wheres
    assert {one.source for one in found} <= {Reference(NAME)}


@given(st.lists(JSON, max_size=5), INDENT, BLANK)
def test_the_values_of_a_list_are_found(values: list[Any], indent: int | None, blank: str) -> None:
    """Of any kind, and each exactly."""
    raw = f"{json.dumps(values, indent=indent)}{blank}".encode()

    assert [json.loads(raw[one.start : one.end]) for one in items(raw, 0)] == values


PART = st.one_of(
    st.builds(image_url, st.sampled_from([NAME, SMALL, LARGE, "https://a.b", "", LARGE[:4097]])),
    st.sampled_from(
        [
            {"type": "text", "text": LARGE},
            {"type": "input_image", "file_id": NAME, "detail": LARGE},
            {"type": "image", "image_cid": LARGE},
            {"type": LARGE, "image_url": LARGE},
            {LARGE: LARGE},
        ]
    ),
)
DOCUMENT = st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"content": st.lists(PART, max_size=3)}))},
    optional={"x": st.sampled_from([LARGE, [LARGE], 1]), "image": st.sampled_from([LARGE, NAME])},
)


@given(DOCUMENT, st.sampled_from([None, 0, 2]), st.lists(st.integers(100, 5000), min_size=1))
def test_a_long_body_shows_the_pictures_that_a_short_one_does(
    document: object, indent: int | None, cuts: list[int]
) -> None:
    """However it comes in pieces: the same ones, at the same places in its bytes."""
    raw = json.dumps(document, indent=indent).encode()

    assert _ended(followed(raw, cuts, 4096)).pictures() == pictures_in(Skeleton(raw))


async def given_(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("filler", ["", "QUJD" * 400_000])
async def test_a_changed_body_is_an_ordinary_one(tmp_path: Path, filler: str) -> None:
    """In memory or spooled: all other bytes stay, and it can be edited as if it came so."""
    raw = told({**chat(image_url(NAME), image_url(URI + filler)), "seed": 1})
    with _held(raw, tmp_path) as body:
        first, second = await body.pictures()
        change = Change(first.place, partial(given_, first.before, b"X" * 9000, first.after))
        with await body.changed([change], 1 << 30) as other:
            assert isinstance(second.source, Inline)
            assert await body.read(second.source.text) == json.dumps(URI + filler).encode()
            other.edit(Edit("b", ["seed"]))
            sent = b"".join([bytes(one) async for one in other.chunks()])
            assert (other.peek.model, other.peek.has_pictures) == ("a", True)
            assert [one.source for one in await other.pictures()] == [
                Inline(Span(one.start, one.end)) for one in _strings(raw, NAME, "X" * 9000, filler)
            ]

    expected = json.loads(raw.replace(NAME.encode(), b"X" * 9000))
    del expected["seed"]
    assert json.loads(sent) == {**expected, "model": "b"}


def _held(raw: bytes, folder: Path) -> Body:
    """Hold it as it would be held if it came so."""
    if len(raw) <= 1 << 20:
        return body_of(raw)
    text, spool = followed(raw, [65_536], 4096), (folder / "spool").open("w+b")
    spool.write(raw)
    return Body(spool, len(raw), text.end(), text)


def _strings(raw: bytes, name: str, uri: str, filler: str) -> list[Span]:
    """Find where the two addresses stand once the first has changed."""
    changed = raw.replace(name.encode(), uri.encode())
    texts = (json.dumps(uri).encode(), json.dumps(URI + filler).encode())
    starts = [changed.index(text) for text in texts]
    return [Span(at, at + len(text)) for at, text in zip(starts, texts, strict=True)]


async def test_a_changed_body_has_a_bound() -> None:
    """A few names must not become more than a body may be."""
    with body_of(told(chat(image_url(NAME)))) as body:
        (one,) = await body.pictures()
        with pytest.raises(BodyTooLarge):
            await body.changed([Change(one.place, partial(given_, b'"', b"X" * 2000))], 2000)
