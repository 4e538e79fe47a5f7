"""JSON schemas to grammars: nothing is ignored, so what is not understood is refused."""

from __future__ import annotations

from typing import Any

import pytest

from workers.llama import gbnf, grammar
from workers.llama.tools import Tool, forced_grammar

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "integer", "minimum": 3}, "minimum"),
        ({"type": "string", "pattern": "^a$"}, "pattern"),
        ({"type": "number", "multipleOf": 2}, "multipleOf"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "object", "patternProperties": {}}, "patternProperties"),
        ({"allOf": [PERSON, PERSON]}, "allOf"),
        ({"anyOf": [PERSON], "properties": {}}, "properties"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "maxItems": 10**9}, "maxItems"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "maxLength"),
        ({"type": "object", "required": ["x"]}, "required"),
        ({"type": "text"}, "text"),
        ({"type": ["string", "null"], "pattern": "^a$"}, "pattern"),
        ({"$ref": "https://example.com/a.json"}, "references"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"enum": []}, "enum"),
        ({"properties": {"a": False}}, "not a schema"),
    ],
)
def test_what_cannot_be_enforced_is_refused(schema: dict[str, Any], says: str) -> None:
    """A keyword that would silently not hold is an error that names it."""
    with pytest.raises(grammar.Unsupported, match=says):
        grammar.of_schema(schema)


def test_nesting_is_bounded() -> None:
    """Neither a deep schema nor a deep grammar reaches the engine's recursive parser."""
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"type": "array", "items": deep}

    with pytest.raises(grammar.Unsupported, match="nested"):
        grammar.of_schema(deep)
    with pytest.raises(grammar.Unsupported, match="nested"):
        gbnf.check("root ::= " + "(" * 1000)
    with pytest.raises(grammar.Unsupported, match="longer"):
        gbnf.check("a" * 1_000_000)


@pytest.mark.parametrize(
    "text",
    [
        '")))))))" ',
        '"\\"))))))"',
        "[)))))))]",
        "[\\])))))]",
        '["))))))]',
        "<))))))>",
        '<"> ',
        "# )))))\r",
        "# )))))\n",
    ],
)
def test_brackets_in_texts_hide_no_nesting(text: str) -> None:
    """What only looks like a closing bracket does not make up for an opening one."""
    with pytest.raises(gbnf.Unsupported, match="nested"):
        gbnf.check(f"root ::= {text * 100}{'(' * 100}")


def test_brackets_in_texts_are_no_nesting() -> None:
    """A grammar may speak of as many brackets as it likes."""
    rule = 'root ::= "' + "(" * 1000 + '" [(]'

    assert gbnf.check_foreign(rule) == rule


@pytest.mark.parametrize("rule", ['"' * 99_999, "[" * 99_999, "<" * 99_999, "[\\" * 50_000])
def test_what_is_not_closed_is_read_quickly(rule: str) -> None:
    """The check of a grammar takes a time in proportion to its length."""
    assert gbnf.check(rule) == rule


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('"a"{2,1}', "from 2 to only 1"),
        ('"a"{ 2 , # so\n 1 }', "from 2 to only 1"),
        ('"a"{1,99999}', "more than 2000"),
        (f'"a"{{{"9" * 9999}}}', "more than 2000"),
        ('"a"?' * 101, "more than 100"),
        ('"a"*' * 101, "more than 100"),
        ('"a"{ 00 ,1}' * 101, "more than 100"),
    ],
)
def test_repeats_that_never_end_are_refused(rule: str, says: str) -> None:
    """A repetition that the engine would unroll without end, or walk for ever, stays out."""
    with pytest.raises(gbnf.Unsupported, match=says):
        gbnf.check_foreign(f"root ::= {rule}")


def test_ordinary_repeats_pass() -> None:
    """Literals with question marks, and plain counts, are no optionals."""
    rule = 'root ::= "{2,1}?*?*" [?*]' + '"a"{3}' * 200 + '"b"{1,2}' * 200

    assert gbnf.check_foreign(rule) == rule


@pytest.mark.parametrize("keyword", ["definitions", "$defs"])
def test_tools_refer_to_their_own_schemas(keyword: str) -> None:
    """A reference starts from its tool's parameters, and two tools may use one name."""

    def tool(name: str, word: str) -> Tool:
        thing = {"$ref": f"#/{keyword}/Thing"}
        properties = {"one": thing, "other": {"$ref": "#/properties/one"}}
        own = {"properties": properties, keyword: {"Thing": {"const": word}}}
        return Tool(name, {"type": "object", **own})

    rules = forced_grammar([tool("a", "first"), tool("b", "second")]).splitlines()

    assert sum(rule.endswith(r'::= "\"first\""') for rule in rules) == 1
    assert sum(rule.endswith(r'::= "\"second\""') for rule in rules) == 1


def test_recursive_schema_becomes_one_rule() -> None:
    """A schema that refers to itself ends."""
    tree = {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"leaves": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            }
        },
    }

    rules = grammar.of_schema(tree).splitlines()

    assert sum(rule.startswith("ref") for rule in rules) == 1
