"""A long JSON body, of which only the skeleton is held: seen and edited as a short one is."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.body import Body, Edit, Peek, read_body
from proxy.body.fields import members
from proxy.body.lexer import JsonPeek
from proxy.body.reading import MEMORY_BYTES, READ_BYTES
from proxy.body.skeleton import Skeleton
from proxy.errors import BadRequest
from tests.proxy.served import spawned
from tests.proxy.test_body import BLANK, INDENT, JSON, escaped, spliced
from tests.proxy.test_filters import peak_of

UPLOAD_BYTES = 40 << 20
LONG_BYTES = 140  # so that it may hold an escape and still be short
Text = JsonPeek | Skeleton

LONG = st.builds(
    lambda unit, times, end: unit * times + end,
    st.sampled_from(["a", "\\", '"', "\n", "é", "\\\\n", "}{][,:", "😀 b"]),
    st.sampled_from([1, 30, 69, 70, 71, 139, 140, 141, 300]),
    st.sampled_from(["", "\\", '"', "\\u0041"]),
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["image_url", "text"]), "text": LONG},
        optional={"image_url": st.fixed_dictionaries({"url": LONG})},
    ),
    max_size=3,
)
MESSAGES = st.lists(st.fixed_dictionaries({"content": st.none() | LONG | PARTS}), max_size=3)
ANY = JSON | LONG | st.lists(LONG, max_size=3) | st.dictionaries(LONG, JSON | LONG, max_size=3)
FIELD = st.one_of(
    st.tuples(st.just("model"), st.sampled_from(["a", "b/c", "ключ", ""])),
    st.tuples(st.just("messages"), MESSAGES | JSON),
    st.tuples(st.just("stream"), st.booleans() | LONG),
    st.tuples(st.just("keep_alive"), st.sampled_from(["5m", 3, None, True, []])),
    st.tuples(st.just("priority"), st.sampled_from(["high", -3, None, 1.5])),
    st.tuples(st.just("size"), st.just("64x32") | LONG | JSON),
    st.tuples(st.sampled_from(["width", "height"]), st.just(64) | JSON),
    st.tuples(st.sampled_from(["x", "y", ""]) | LONG, ANY),
)
PATHS = """
    x y seed size size.a priority keep_alive model model.x x.0.a x.y x.-1 y.2
    messages messages.0 messages.0.content messages.1.content.0 messages.-1
    messages.0.content.-1.text messages.0.content.0.image_url.url
"""
PATH = st.sampled_from(["", *PATHS.split()])
EDIT = st.builds(
    Edit,
    st.none() | st.just("new"),
    st.lists(PATH, max_size=2),
    st.lists(st.tuples(PATH, JSON), max_size=3),
)
CUTS = st.lists(st.integers(1, 200), min_size=1, max_size=5)


@st.composite
def written_bodies(draw: st.DrawFn) -> bytes:
    """Draw a JSON object as somebody may write it, with blanks, escapes and doubled fields."""
    fields = []
    for name, value in draw(st.lists(FIELD, max_size=5)):
        key = draw(st.sampled_from([json.dumps(name), escaped(name)]))
        text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(INDENT))
        fields.append(f"{draw(BLANK)}{key}{draw(BLANK)}:{draw(BLANK)}{text}{draw(BLANK)}")
    return f"{draw(BLANK)}{{{','.join(fields)}}}{draw(BLANK)}".encode("utf-8", "surrogatepass")


def followed(raw: bytes, cuts: Sequence[int], long_bytes: int = LONG_BYTES) -> JsonPeek:
    """Feed the body in pieces of these sizes, and round again."""
    text, at = JsonPeek(long_bytes), 0
    while at < len(raw):
        for size in cuts:
            text.feed(raw[at : at + size])
            at += size
    return text


def outcome(text: Text) -> Peek | tuple[str, object, str]:
    """Tell what was seen, or what is told instead."""
    try:
        return text.end() if isinstance(text, JsonPeek) else text.peek()
    except BadRequest as error:
        return error.message, error.param, error.told_code


@given(written_bodies(), CUTS, EDIT)
def test_a_long_body_is_seen_and_edited_as_a_short_one_is(
    raw: bytes, cuts: list[int], edit: Edit
) -> None:
    """However it comes in pieces; and what the edit does not name stays byte for byte."""
    short, long = Skeleton(raw), followed(raw, cuts)
    seen = outcome(short)

    assert outcome(long) == seen
    if isinstance(seen, Peek):
        one, other = spliced(raw, short.splices(edit)), spliced(raw, long.splices(edit))
        assert json.loads(other) == json.loads(one)
        if not any("." in path for path in [*edit.left_out, *(path for path, _ in edit.put)]):
            assert other == one


STRINGS = ['"a"', '"\\""', '"\\\\"', f'"{"b" * 150}"', '"' + '\\"' * 80 + '"', "c" * 60]
TOKEN = st.sampled_from([*'{}[],:"1\\ \n\ufeff', "tru", "true", '"a":', '"model":', *STRINGS])


@given(st.lists(TOKEN, max_size=12).map("".join), CUTS)
def test_what_is_no_json_is_told_in_the_same_words(text: str, cuts: list[int]) -> None:
    """With the same line and column, however much was left out before them."""
    for raw in (text.encode(), b"{" + text.encode()):
        seen = outcome(Skeleton(raw))
        # what is wrong inside a long string is the worker's to see
        is_inside = not isinstance(seen, Peek) and re.search("control|escape", seen[0])
        assume(not is_inside or len(raw) < LONG_BYTES)

        assert outcome(followed(raw, cuts)) == seen


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ('{"a":"%s"', "EOF while parsing an object at line 1 column 5007"),
        ('{"a":"%s', "EOF while parsing a string at line 1 column 5006"),
        ('{"a":"%s\\', "EOF while parsing a string at line 1 column 5007"),
        ('{"a":"%s" "b"}', "expected `,` or `}` at line 1 column 5009"),
        ('{"a":"%s",\n "b":"%s"]', "expected `,` or `}` at line 2 column 5008"),
        ('{"%s" 1}', "expected `:` at line 1 column 5005"),
        ('{"a":"%s",}', "trailing comma at line 1 column 5009"),
        ('\ufeff{"a":"%s"}', "expected value at line 1 column 1"),
    ],
)
def test_the_place_of_a_mistake_is_that_in_the_body(raw: str, told: str) -> None:
    """Not that in the skeleton; and it is what is told of a short body too."""
    body = raw.replace("%s", "x" * 5000).encode()

    text, _, code = outcome(followed(body, [64]))
    assert (text, code) == (f"the body is not valid JSON: Invalid JSON: {told}", "invalid_json")
    assert outcome(Skeleton(body))[0] == text


@pytest.mark.parametrize("name", ["model", "keep_alive", "priority"])
def test_a_field_of_ours_has_a_bound_in_a_long_body(name: str) -> None:
    """As it has in a form: nobody is called by thousands of letters."""
    text = followed(json.dumps({name: "x" * 5000}).encode(), [64])

    assert outcome(text) == (f"the field {name} is too long", name, "invalid_request")


@pytest.mark.parametrize("unit", ['"a",', '"\\n",', "[{}],", '"' + "\\\\" * 99 + '",'])
def test_many_small_things_are_kept(unit: str) -> None:
    """A skeleton may be as large as its body; it is the body then."""
    raw = ('{"model":"a","x":[' + unit * 5_000 + "0]}").encode()
    text = followed(raw, [65_536], 4096)

    assert text.end() == Peek("a")
    assert spliced(raw, text.splices(Edit("b"))) == raw.replace(b'"model":"a"', b'"model":"b"')


def test_fields_are_found_behind_long_strings() -> None:
    """Of a text that is held whole: nested or not, with escapes or without."""
    long = ["x" * 5000, '"]}' * 2000, "\\" * 5001, "\n" * 5000]
    document = {"a": long, "b": {"c": [{"d": one} for one in long]}, "e": long[1], "f": [[[{}]]]}
    raw = json.dumps(document).encode()

    found = {one.name: json.loads(raw[one.value_start : one.value_end]) for one in members(raw)}
    assert found == document


async def test_strings_that_an_edit_moves_are_read_from_the_spool(tmp_path: Path) -> None:
    """Byte for byte, and twice; what is beside them is written anew."""
    url = "\\u0041" * 60_000
    raw = f'{{"model":"a", "x": [ {{"u":"{url}", "v" : 1}}, "{url}"]}}'.encode()
    text, spool = followed(raw, [65_536], 4096), (tmp_path / "spool").open("w+b")
    spool.write(raw)
    with Body(spool, len(raw), text.end(), text) as body:
        body.edit(Edit(put=(("x.0.v", 2), ("x.-1", 3))))
        sent = [bytes(chunk) async for chunk in body.chunks()]
        again = [bytes(chunk) async for chunk in body.chunks()]

    expected = f'{{"model":"a", "x": [{{"u":"{url}","v":2}},"{url}",3]}}'.encode()
    assert b"".join(sent) == b"".join(again) == expected
    assert body.size == len(expected)
    assert max(map(len, sent)) <= READ_BYTES


@pytest.mark.parametrize("filler_bytes", [10, MEMORY_BYTES - 40, MEMORY_BYTES, 3 * MEMORY_BYTES])
@pytest.mark.parametrize(
    ("written", "content_type"),
    [
        (b'{"x":"%b","model":"a","seed":1}', "application/json"),
        (b' {"x":"%b","model":"a","seed":1}', "application/x-www-form-urlencoded"),
        (b"x=%b&model=a&seed=1", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_of_any_length_is_read_and_edited(
    written: bytes, content_type: str, filler_bytes: int
) -> None:
    """Below the border, at it and above, whether it tells its length or comes in chunks."""
    raw = written % (b"y" * filler_bytes)

    async def edited(request: web.Request) -> web.Response:
        with await read_body(request, 1 << 30, 10.0) as body:
            body.edit(Edit(f"{body.peek.model}2", ["seed"]))
            sent = b"".join([bytes(chunk) async for chunk in body.chunks()])
            assert body.size == len(sent)
        return web.Response(body=sent)

    async def in_chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(raw), 100_003):
            yield raw[at : at + 100_003]

    expected = raw.replace(b'"a"', b'"a2"').replace(b"model=a", b"model=a2")
    app = web.Application()
    app.router.add_post("/", edited)
    async with TestClient(TestServer(app)) as client:
        for data in (io.BytesIO(raw), in_chunks()):
            answer = await client.post("/", data=data, headers={"Content-Type": content_type})
            assert await answer.read() == expected.replace(b',"seed":1', b"")


async def test_a_long_chat_is_not_held_in_memory(tmp_path: Path) -> None:
    """Of 40 MiB that are edited on their way only a few are ever in the proxy's memory."""
    config = (
        "models: {painter: {useModelName: another-name, aliases: [short], echo: {},"
        " filters: {stripParams: seed, setParams: {messages.0.role: user, top_k: 1}}}}"
    )
    url = "data:image/png;base64," + "QUJD" * (UPLOAD_BYTES // 8)
    part = {"type": "image_url", "image_url": {"url": url}}
    document = {"messages": [{"content": [part, part]}], "seed": 1, "model": "short"}
    raw = json.dumps(document, separators=(",", ":")).encode()
    path, headers = "/v1/images/generations", {"Content-Type": "application/json"}
    async with spawned(config, tmp_path) as (hotseat, process):
        small = await hotseat.post(path, json={"model": "short"})
        before = psutil.Process(process.pid).memory_info().rss
        answer = await hotseat.post(path, data=io.BytesIO(raw), headers=headers)
        peak = peak_of(process.pid)

    expected = raw.replace(b',"seed":1', b"").replace(b"short", b"another-name")
    added = len(b',"role":"user"') + len(b',"top_k":1')
    assert small.status == 200
    assert answer.body["received_bytes"] == len(expected) + added
    assert peak - before < 12 << 20
