"""A request's body: what it says about itself, and fields cut out of it byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.body import Body, FormPeek, Peek, peek_json
from proxy.body.fields import cut, members
from proxy.errors import BadRequest
from proxy.wishes import STRIPPED

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(['"', "\\", '\\"', "\\\\", "}{][,:", 'a"b\\']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
INDENT = st.sampled_from([None, 0, 2])
BLANK = st.text(" \t\r\n", max_size=2)
NAME = st.sampled_from([*STRIPPED, "model", "", 'a"b', "a\\", "ключ"]) | st.text(max_size=3)


def escaped(text: str) -> str:
    """Write every character of a JSON string as an escape."""
    units = text.encode("utf-16-be").hex()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


@st.composite
def written_members(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Draw fields as (name, name as written, the whole field as written), blanks included."""
    found = []
    for name in draw(st.lists(NAME, max_size=6)):
        key = draw(st.sampled_from([json.dumps(name), escaped(name)]))
        value = json.dumps(draw(JSON), ensure_ascii=draw(st.booleans()), indent=draw(INDENT))
        text = f"{draw(BLANK)}{key}{draw(BLANK)}:{draw(BLANK)}{value}{draw(BLANK)}"
        found.append((name, key, text))
    return found


@given(written_members(), BLANK, BLANK)
def test_the_named_fields_are_cut_and_no_other_byte_changes(
    fields: list[tuple[str, str, str]], before: str, after: str
) -> None:
    """What is left is the text that would have been written without the named fields."""
    texts = [text for _, _, text in fields]
    left = [text for name, _, text in fields if name not in STRIPPED]
    raw = f"{before}{{{','.join(texts)}}}{after}".encode()
    peeked = json.loads(raw)

    assert cut(raw, STRIPPED) == f"{before}{{{','.join(left)}}}{after}".encode()
    assert json.loads(cut(raw, STRIPPED)) == {
        name: value for name, value in peeked.items() if name not in STRIPPED
    }


@given(written_members())
def test_members_are_found_with_their_values(fields: list[tuple[str, str, str]]) -> None:
    """Each has its name, its span up to the commas, and exactly its value."""
    raw = ("{" + ",".join(text for _, _, text in fields) + "}").encode()
    found = members(raw)

    assert [(one.name, raw[one.start : one.end].decode()) for one in found] == [
        (name, text) for name, _, text in fields
    ]
    values = {one.name: json.loads(raw[one.value_start : one.value_end]) for one in found}
    assert values == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        ('{"priority":1,"a":2}', '{"a":2}'),
        ('{"a":2,"priority":1}', '{"a":2}'),
        ('{"a":1.0 , "priority" : [1,{"b":"]"}] , "b":1e5}', '{"a":1.0 , "b":1e5}'),
        ('{ "priority":1 }', "{}"),
        ('{"priority":1,"keep_alive":"5m"}', "{}"),
        ('{"priority":1,"a":0,"priority":2}', '{"a":0}'),
        ('{"\\u0070riority":1,"a":{"priority":3}}', '{"a":{"priority":3}}'),
        ('{"a":"\\\\","priority":"\\"}"}', '{"a":"\\\\"}'),
        (" { } ", " { } "),
    ],
)
def test_cutting(raw: str, left: str) -> None:
    """First, middle, last and only fields, doubled and escaped names; nested ones stay."""
    assert cut(raw.encode(), STRIPPED).decode() == left


async def whole(body: Body) -> bytes:
    return b"".join([chunk async for chunk in body.chunks()])


async def test_a_body_without_fields_has_its_new_size() -> None:
    """The size is that of the bytes that are sent; the peek still tells what was cut."""
    raw = b'{"model": "a", "priority": 3}'
    body = Body(raw, None, len(raw), peek_json(raw)).without(STRIPPED)

    assert await whole(body) == b'{"model": "a"}'
    assert (body.size, body.peek.priority) == (14, 3)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, Peek()),
        ({"model": "a", "stream": True}, Peek("a", is_stream=True)),
        ({"stream": "true"}, Peek()),
        ({"keep_alive": "5m", "priority": -3}, Peek(keep_alive="5m", priority=-3)),
        ({"keep_alive": -1, "priority": "high"}, Peek(keep_alive=-1, priority="high")),
        ({"keep_alive": 1.5}, Peek(keep_alive=1.5)),
        ({"keep_alive": None, "priority": None}, Peek()),
        ({"size": "1024x512"}, Peek(pixels=1024 * 512)),
        ({"size": "1024x512", "width": 64, "height": 32.0}, Peek(pixels=64 * 32)),
        ({"size": "1024x512", "width": 64}, Peek(pixels=1024 * 512)),
        ({"width": 64, "height": "auto"}, Peek()),
        ({"size": "auto"}, Peek()),
        ({"size": None, "width": None, "height": None}, Peek()),
        ({"size": "0x512"}, Peek()),
        ({"size": "99999999x512"}, Peek()),
        ({"width": True, "height": 512}, Peek()),
        ({"width": 10**400, "height": 512}, Peek()),
        ({"width": [512], "height": {}}, Peek()),
    ],
)
def test_what_a_body_says_about_itself(document: dict[str, Any], expected: Peek) -> None:
    """Of what is no size the worker is the judge."""
    assert peek_json(json.dumps(document).encode()) == expected


@pytest.mark.parametrize("width", ["Infinity", "-Infinity", "NaN", "1e400"])
def test_numbers_that_are_none(width: str) -> None:
    """They are no width, and no crash."""
    assert peek_json(f'{{"width": {width}, "height": 8}}'.encode()) == Peek()


@pytest.mark.parametrize("value", [True, [5], {"a": 1}])
@pytest.mark.parametrize("name", ["keep_alive", "priority"])
def test_wrong_types_are_told_by_name(name: str, value: object) -> None:
    """The error names the field, and what it may be."""
    with pytest.raises(BadRequest, match=f"^{name} must be") as caught:
        peek_json(json.dumps({name: value}).encode())

    assert caught.value.param == name


def form_of(fields: dict[str, str], picture: bytes) -> bytes:
    """Write a form with the boundary `b`."""
    parts = [f'name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    parts.append(b'name="image"; filename="a.png"\r\n\r\n' + picture + b"\r\n")
    heads = b"--b\r\nContent-Disposition: form-data; "
    return b"".join(heads + part for part in parts) + b"--b--\r\n"


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_a_form_says_the_same(step: int) -> None:
    """However it comes in pieces, the short fields are kept and the picture is not."""
    fields = {"model": "painter", "size": "512x256", "stream": "true", "priority": "high"}
    raw = form_of(fields, b"model\r\n\x00" * 50)
    form = FormPeek("multipart/form-data; boundary=b")
    for at in range(0, len(raw), step):
        form.feed(raw[at : at + step])

    assert form.end() == Peek("painter", is_stream=True, pixels=512 * 256)


def test_an_endless_field_of_a_form_is_refused() -> None:
    """A field that is kept in memory has a bound."""
    form = FormPeek("multipart/form-data; boundary=b")

    with pytest.raises(BadRequest, match="width is too long"):
        form.feed(form_of({"width": "1" * 5000}, b""))
