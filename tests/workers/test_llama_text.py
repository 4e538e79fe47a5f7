"""Token bytes to text, and tool calls in text: the pure parts of the llama worker."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.llama.formats import CHATML, VICUNA
from workers.llama.template import ChatTemplate, TemplateFailed
from workers.llama.text import TextStream, held_back
from workers.llama.tools import (
    Arguments,
    Begin,
    Delta,
    ForcedScanner,
    FreeScanner,
    PlainScanner,
    Say,
    Scanner,
)

WEATHER = {"get_weather"}
ROME = {"name": "get_weather", "arguments": {"city": "Rome"}}
pieces = st.lists(st.integers(1, 7), min_size=1, max_size=20)


def cut(text: str | bytes, sizes: list[int]) -> list:
    """Cut a text into pieces of these sizes, over and over."""
    found, at, turn = [], 0, 0
    while at < len(text):
        found.append(text[at : at + sizes[turn % len(sizes)]])
        at, turn = at + len(found[-1]), turn + 1
    return found


def scan(scanner: Scanner, text: str, sizes: list[int]) -> list[Delta]:
    told = [delta for piece in cut(text, sizes) for delta in scanner.feed(piece)]
    return told + list(scanner.finish())


def calls(told: list[Delta]) -> list[tuple[str, object]]:
    """Put the calls together again, as a client does."""
    names = {delta.number: delta.name for delta in told if isinstance(delta, Begin)}
    texts = dict.fromkeys(names, "")
    for delta in told:
        if isinstance(delta, Arguments):
            texts[delta.number] += delta.fragment
    return [(names[number], json.loads(texts[number])) for number in names]


def said(told: list[Delta]) -> str:
    return "".join(delta.text for delta in told if isinstance(delta, Say))


@given(st.text(max_size=40), pieces)
def test_text_survives_any_cut(text: str, sizes: list[int]) -> None:
    """Characters that come in parts are put together, whatever the parts."""
    stream = TextStream()

    told = [stream.feed(piece) for piece in cut(text.encode(errors="replace"), sizes)]

    assert "".join([*told, stream.finish()]) == text.encode(errors="replace").decode()


@given(st.text("ab#", max_size=30), st.text("ab#", min_size=1, max_size=4), pieces)
def test_nothing_of_a_stop_string_is_said(text: str, stop: str, sizes: list[int]) -> None:
    """The answer ends where the first stop string begins, however the tokens cut it."""
    stream = TextStream([stop])

    told = "".join(stream.feed(piece) for piece in cut(text.encode(), sizes)) + stream.finish()

    assert told == text.split(stop, maxsplit=1)[0]
    assert stream.stopped == (stop in text)


def test_held_back_is_the_longest_beginning() -> None:
    """Of the end of a text, as much is held back as could become a mark."""
    assert held_back("say <tool", ("<tool_call>",)) == 5
    assert held_back("say", ("<tool_call>",)) == 0
    assert held_back("ababa", ("abab", "bac")) == 3


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{json.dumps(ROME)}\n</tool_call>",
        f"<tool_call>{json.dumps(ROME)}",
        '{"name": "get_weather", "parameters": {"city": "Rome"}}',
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}',
        f"[TOOL_CALLS] {json.dumps([ROME])}",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}',
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}',
        '{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}',
    ],
)
@given(pieces)
def test_call_is_found_in_each_dialect(text: str, sizes: list[int]) -> None:
    """Hermes, Llama 3 and Mistral ways of calling are understood, however they are cut."""
    told = scan(FreeScanner(WEATHER), text, sizes)

    assert calls(told) == [("get_weather", {"city": "Rome"})]
    assert said(told) == ""


@given(pieces)
def test_words_before_a_call_are_said_at_once(sizes: list[int]) -> None:
    """What the model says first is content, and several calls follow in order."""
    call = f"<tool_call>{json.dumps(ROME)}</tool_call>"

    told = scan(FreeScanner(WEATHER), f"Let me look. {call}\n{call}", sizes)

    assert said(told) == "Let me look. "
    assert [delta.number for delta in told if isinstance(delta, Begin)] == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "rm_rf", "arguments": {}}',
        '{"name": {"a": 1}, "arguments": {}}',
        '{"name": ["get_weather"]}',
        '{"a": 1}',
        "<tool_call>nonsense",
        "a { b < c [TOOL",
    ],
)
@given(pieces)
def test_what_is_no_call_is_said(text: str, sizes: list[int]) -> None:
    """JSON that calls no tool on offer, or a tag with nonsense, stays text."""
    told = scan(FreeScanner(WEATHER), text, sizes)

    assert (calls(told), said(told)) == ([], text)


def test_arguments_too_deep_to_read_stay_text() -> None:
    """A model that opens brackets without end in a call's arguments brings nothing down."""
    deep = "[" * 100_000
    call = json.dumps({"name": "get_weather", "arguments": deep})

    told = scan(FreeScanner(WEATHER), f"<tool_call>{call}", [4096])

    assert calls(told) == [("get_weather", deep)]


@given(pieces, st.dictionaries(st.text(max_size=5), st.text('}{" \\', max_size=9), max_size=3))
def test_forced_call_streams_its_arguments(sizes: list[int], arguments: dict[str, str]) -> None:
    """Arguments come out whole but for the envelope's brace, also with braces in them."""
    text = json.dumps({"name": "get_weather", "arguments": arguments}) + " \n"

    told = scan(ForcedScanner(), text, sizes)

    assert calls(told) == [("get_weather", arguments)]
    assert isinstance(told[0], Begin)
    assert sum(isinstance(delta, Begin) for delta in told) == 1


@given(st.text(), pieces)
def test_without_tools_all_is_text(text: str, sizes: list[int]) -> None:
    """Nobody who offered no tools gets calls."""
    assert said(scan(PlainScanner(), text, sizes)) == text


def test_builtin_templates_go_on_as_the_assistant() -> None:
    """The templates for files without one end where the assistant begins."""
    messages = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]

    chatml = ChatTemplate(CHATML, bos="<s>", eos="</s>").render(messages)
    vicuna = ChatTemplate(VICUNA, bos="<s>", eos="</s>").render(messages)

    assert chatml == (
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert vicuna == "Be. USER: Hi ASSISTANT:"


def test_template_that_reads_parts_gets_parts() -> None:
    """A template that only reads lists of parts is found out, and given them."""
    source = (
        "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
    )

    told = ChatTemplate(source, bos="", eos="").render([{"role": "user", "content": "Hi"}])

    assert told == "[Hi]"


@pytest.mark.parametrize(
    "source",
    [
        (
            "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}"
            "{% endif %}{{ m.content }}{% endfor %}"
        ),
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
    ],
)
def test_system_message_is_never_lost(source: str) -> None:
    """Where a template knows no system role, its words go into the first turn."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]

    assert ChatTemplate(source, bos="", eos="").render(messages) == "Be brief.\n\nHi"


@pytest.mark.parametrize("source", ["{% for x in %}", "{{ raise_exception('no system') }}"])
def test_template_troubles_are_told(source: str) -> None:
    """A broken template and one that refuses are errors with their own words."""
    with pytest.raises(TemplateFailed):
        ChatTemplate(source, bos="", eos="").render([{"role": "user", "content": "Hi"}])


def test_template_cannot_leave_its_sandbox() -> None:
    """A model file is data from strangers: its template reaches nothing of Python's."""
    source = "{{ messages.__class__.__mro__ }}{{ messages[0].content }}"

    with pytest.raises(TemplateFailed):
        ChatTemplate(source, bos="", eos="").render([{"role": "user", "content": "Hi"}])
