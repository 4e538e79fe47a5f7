"""A request's body: what it says about itself, and fields cut out of it byte by byte."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.body import Body, Edit, FormPeek, Peek, peek_json, peek_query, renamed_in
from proxy.body.edit import path_of, splices_in
from proxy.body.fields import members
from proxy.body.look import KnownJson, KnownQuery
from proxy.body.skeleton import Skeleton
from proxy.body.splice import Splice, pieces, size_after
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


def spliced(raw: bytes, splices: Sequence[Splice]) -> bytes:
    """Carry the splices out, in small steps, and see that the size is what is told of it."""
    parts = [
        piece if isinstance(piece, bytes) else raw[piece.start : piece.end]
        for piece in pieces(splices, len(raw), 5)
    ]
    whole = b"".join(parts)
    assert len(whole) == size_after(splices, len(raw))
    return whole


def edited(raw: bytes, edit: Edit) -> bytes:
    return spliced(raw, splices_in(raw, edit))


def cut(raw: bytes, names: Sequence[str]) -> bytes:
    return edited(raw, Edit(left_out=names))


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


@given(
    written_members(), st.dictionaries(NAME, JSON, max_size=3), st.lists(NAME, max_size=3), BLANK
)
def test_an_edit_means_what_it_says(
    fields: list[tuple[str, str, str]], put: dict[str, Any], left_out: list[str], blank: str
) -> None:
    """Left out, then set: what is parsed from it is what a dictionary would have become."""
    raw = (blank + "{" + ",".join(text for _, _, text in fields) + "}" + blank).encode()
    escaped_put = {re.sub(r"([.\\])", r"\\\1", name): value for name, value in put.items()}
    escaped_out = [re.sub(r"([.\\])", r"\\\1", name) for name in left_out]
    expected = json.loads(raw)
    for name in {*left_out} - {"model"}:
        expected.pop(name, None)
    expected |= {name: value for name, value in put.items() if name != "model"}
    edit = Edit("new", escaped_out, tuple(escaped_put.items()))

    assert json.loads(edited(raw, edit)) == expected | {"model": "new"}


@pytest.mark.parametrize(
    ("raw", "put", "result"),
    [
        ('{"a":1}', {"b.c": 2}, '{"a":1,"b":{"c":2}}'),
        ('{"b":{"x": 1}, "a": 1}', {"b.c": 2}, '{"b":{"x":1,"c":2}, "a": 1}'),
        ('{"b":"text"}', {"b.c": 2}, '{"b":{"c":2}}'),
        ('{"b":null}', {"b.c.d": True}, '{"b":{"c":{"d":true}}}'),
        ('{"b":[1,2,3]}', {"b.1": "x"}, '{"b":[1,"x",3]}'),
        ('{"b":[1]}', {"b.3": 4}, '{"b":[1,null,null,4]}'),
        ('{"b":[1]}', {"b.-1": 2}, '{"b":[1,2]}'),
        ('{"b":[{"c":1}]}', {"b.0.c": 2}, '{"b":[{"c":2}]}'),
        ("{}", {"b.0": 1}, '{"b":[1]}'),
        ('{"b":{"0":1}}', {"b.0": 2}, '{"b":{"0":2}}'),
        ('{"a.b": 1 }', {"a\\.b": 2}, '{"a.b": 2 }'),
        ("{}", {"a\\.b": 2}, '{"a.b":2}'),
        ('{"a":1}', {"model": "x", "model.y": 1}, '{"a":1}'),
        ('{"a":1,"a":2}', {"a": 3}, '{"a":3,"a":3}'),
        ("{ }", {"a": {"é": 1}}, '{"a":{"\\u00e9":1} }'),
        ('{"a":{"x":1}}', {"a": {"y": 1}, "a.z": 2}, '{"a":{"y":1,"z":2}}'),
    ],
)
def test_setting(raw: str, put: dict[str, Any], result: str) -> None:
    """Dots lead inwards, numbers into lists, and what is in the way gives way."""
    assert edited(raw.encode(), Edit(put=tuple(put.items()))).decode() == result


def test_what_is_set_is_not_changed_by_a_later_one() -> None:
    """The values are the config's own: no request may leave a trace in them."""
    own = {"x": {"y": 1}}
    edit = Edit(put=(("a", own), ("a.x.y", 2)))

    assert json.loads(edited(b"{}", edit)) == {"a": {"x": {"y": 2}}}
    assert own == {"x": {"y": 1}}


@pytest.mark.parametrize(
    ("raw", "left_out", "left"),
    [
        ('{"a":{"b":1,"c":2}}', "a.b", '{"a":{"c":2}}'),
        ('{"a":[1,2,3]}', "a.1", '{"a":[1,3]}'),
        ('{"a":[{"b":1}]}', "a.0.b", '{"a":[{}]}'),
        ('{"a": 1}', "a.b", '{"a": 1}'),
        ('{"model":"x","a":1}', "model", '{"model":"x","a":1}'),
        ('{"b.c":1,"a":1}', "b\\.c", '{"a":1}'),
        ('{"a":1}', "b.c", '{"a":1}'),
    ],
)
def test_leaving_out(raw: str, left_out: str, left: str) -> None:
    """Inside too; the model's name stays."""
    assert edited(raw.encode(), Edit(left_out=[left_out])).decode() == left


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b.0", ("a", "b", "0")),
        ("a\\.b.c", ("a.b", "c")),
        ("a\\\\.b", ("a\\", "b")),
        ("", ("",)),
        (".a", ("", "a")),
        ("a\\", ("a\\",)),
    ],
)
def test_paths(text: str, path: tuple[str, ...]) -> None:
    """A backslash takes the meaning from what follows."""
    assert path_of(text) == path


async def whole(body: Body) -> bytes:
    return b"".join([bytes(chunk) async for chunk in body.chunks()])


async def test_an_edited_body_has_its_new_size() -> None:
    """The size is that of the bytes that are sent; the peek still tells what was cut."""
    raw = b'{"model": "a", "priority": 3}'
    text = Skeleton(raw)
    body = Body(raw, len(raw), text.peek(), KnownJson(text))
    body.edit(Edit(left_out=STRIPPED))

    assert await whole(body) == b'{"model": "a"}'
    assert (body.size, body.peek.priority) == (14, 3)


async def test_the_name_in_a_query_gives_way_to_another() -> None:
    """Of a urlencoded form, and of the query of a path; escapes elsewhere stay as they are."""
    raw = b"a=%41&model=x%2Fy&model=z&b=model%3d"
    peek, spans = peek_query(raw)
    body = Body(raw, len(raw), peek, KnownQuery(raw, spans))
    body.edit(Edit("né w"))

    assert peek.model == "z"
    assert await whole(body) == b"a=%41&model=n%C3%A9+w&model=n%C3%A9+w&b=model%3d"
    assert renamed_in("/a%2Fb?x=%20&model=q", "é") == "/a%2Fb?x=%20&model=%C3%A9"
    assert renamed_in("/a?remodel=q", "b") == "/a?remodel=q"


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
    assert [raw[one.start : one.end] for one in form.models] == [b"painter"]


BOUNDARY_LIKE = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\n--", b"\r\n--b", b"-", b"b", b"a", b"model"]
)


@given(st.lists(BOUNDARY_LIKE, max_size=6), st.integers(1, 9))
def test_the_name_is_found_among_bytes_that_might_be_a_boundary(
    before: list[bytes], step: int
) -> None:
    """Whatever stands before it, and however it comes in pieces."""
    upload = b"".join(before).replace(b"\r\n--b", b"\r\n--c")
    raw = form_of({"model": "a\r\n-b"}, upload).replace(b"--b--", b"--b") + (
        b'Content-Disposition: form-data; name="model"\r\n\r\nlast\r\n--b--\r\n'
    )
    form = FormPeek("multipart/form-data; boundary=b")
    for at in range(0, len(raw), step):
        form.feed(raw[at : at + step])

    assert form.end().model == "last"
    assert [raw[one.start : one.end] for one in form.models] == [b"a\r\n-b", b"last"]


async def test_a_form_is_spliced_where_its_name_stands(tmp_path: Path) -> None:
    """Of a spool on disk; all other bytes stay, and it can be sent twice."""
    raw = form_of({"model": "short", "size": "8x8"}, b"\x00\xff" * 1000)
    spool = (tmp_path / "spool").open("w+b")
    spool.write(raw)
    form = FormPeek("multipart/form-data; boundary=b")
    form.feed(raw)
    with Body(spool, len(raw), form.end(), form) as body:
        body.edit(Edit("a much longer name", left_out=["size"], put=(("a", 1),)))

        assert await whole(body) == raw.replace(b"short", b"a much longer name")
        assert await whole(body) == raw.replace(b"short", b"a much longer name")
        assert body.size == len(raw) + 13


def test_an_endless_field_of_a_form_is_refused() -> None:
    """A field that is kept in memory has a bound."""
    form = FormPeek("multipart/form-data; boundary=b")

    with pytest.raises(BadRequest, match="width is too long"):
        form.feed(form_of({"width": "1" * 5000}, b""))
