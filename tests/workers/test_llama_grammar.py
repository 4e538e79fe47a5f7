"""JSON schemas to grammars: nothing is ignored, so what is not understood is refused."""

from __future__ import annotations

from typing import Any

import pytest

from workers.llama import grammar

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
        grammar.check("root ::= " + "(" * 1000)
    with pytest.raises(grammar.Unsupported, match="longer"):
        grammar.check("a" * 1_000_000)


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
