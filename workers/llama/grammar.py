"""JSON schemas to llama.cpp's grammars (GBNF), or a refusal: nothing is ignored. Pure.

The grammar makes a subset of what the schema allows, and all of it valid JSON: members come in
the order of `properties`, and only declared ones come where any are declared. A keyword that
narrows the valid values and is not handled here is refused, and so is one in an unforeseen
combination: a caller who asked for a shape shall get that shape or an error.
Source: json-schema.org, draft 2020-12.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from workers.llama import gbnf
from workers.llama.gbnf import MAX_REPEATS, Unsupported

JsonSchema = Mapping[str, object]

MAX_SCHEMA_DEPTH = 64

ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "format",
        "strict",
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
    ]
)
"""Keywords that narrow nothing; of `format`, JSON Schema says so too."""

BASIC_RULES = {
    "ws": '" "?',  # one line, for some models would fill a page with white space
    "char": r"""[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})""",
    "string": r'''"\"" char* "\""''',
    "integer": r""""-"? ("0" | [1-9] [0-9]{0,15})""",
    "number": r"""integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?""",
    "boolean": '''"true" | "false"''',
    "null": '''"null"''',
    "object": '''"{" ws (string ws ":" ws value (ws "," ws string ws ":" ws value)*)? ws "}"''',
    "array": '''"[" ws (value (ws "," ws value)*)? ws "]"''',
    "value": "object | array | string | number | boolean | null",
}
TEXT_FORMATS = {
    "date": r"""[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])""",
    "time": r"""([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9]"""
    r""" ("." [0-9]{1,6})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])""",
    "uuid": """hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}""",
}
TEXT_FORMATS["date-time"] = f'{TEXT_FORMATS["date"]} "T" {TEXT_FORMATS["time"]}'
ANY_OBJECT: JsonSchema = {"type": "object"}


def of_schema(schema: JsonSchema) -> str:
    """Make the grammar of a JSON schema. Raises Unsupported."""
    return of_any([(schema, schema)])


def of_any(schemas: Sequence[tuple[JsonSchema, JsonSchema]]) -> str:
    """Make the grammar of any one of some schemas. Raises Unsupported.

    Each comes with the schema that its references start from.
    """
    maker = _Maker()
    options = [maker.option(schema, root) for schema, root in schemas]
    maker.rules["root"] = " | ".join(options)
    return gbnf.check("\n".join(f"{name} ::= {rule}" for name, rule in maker.rules.items()))


def literal(text: str) -> str:
    """Quote a text for a grammar."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    shown = (c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped)
    return f'"{"".join(shown)}"'


class _Maker:
    """Collects the rules of one grammar; a referenced schema becomes a rule once."""

    def __init__(self) -> None:
        self._root: JsonSchema = {}
        self._names: dict[tuple[int, str], str] = {}  # root and $ref → rule
        self.rules: dict[str, str] = {"hex": "[0-9a-fA-F]", **BASIC_RULES}

    def option(self, schema: JsonSchema, root: JsonSchema) -> str:
        """Give an alternative for `schema`, with `root` to start references from."""
        self._root = root
        return f"({self.expression(schema, 'schema', 0)})"

    def expression(self, schema: object, path: str, depth: int) -> str:
        """Give the right side of a rule for `schema`. Raises Unsupported."""
        if depth > MAX_SCHEMA_DEPTH:
            raise Unsupported(f"{path}: nested too deeply")
        if schema is True:
            return "value"
        if not isinstance(schema, Mapping):
            raise Unsupported(f"{path}: not a schema")
        narrowing = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        kind = _kind(narrowing, path)
        makers: dict[str, tuple[set[str], Callable[[JsonSchema, str, int], str]]] = {
            "$ref": ({"$ref"}, self._reference),
            "const": ({"const", "type"}, self._constant),
            "enum": ({"enum", "type"}, self._enumeration),
            "anyOf": ({"anyOf"}, self._alternatives),
            "oneOf": ({"oneOf"}, self._alternatives),
            "allOf": ({"allOf"}, self._single),
            "types": (set(narrowing), self._types),
            "object": ({"type", "properties", "required", "additionalProperties"}, self._object),
            "array": ({"type", "items", "prefixItems", "minItems", "maxItems"}, self._array),
            "string": ({"type", "minLength", "maxLength"}, self._string),
        }
        handled, make = makers.get(kind, ({"type"}, None))
        if unknown := sorted(set(narrowing) - handled):
            raise Unsupported(
                f"{path}: {', '.join(unknown)} cannot be enforced here; leave it out"
            )
        return kind if make is None else make(schema, path, depth + 1)

    def _reference(self, schema: JsonSchema, path: str, depth: int) -> str:
        ref = str(schema["$ref"])
        key = id(self._root), ref
        if key not in self._names:
            self._names[key] = f"ref{len(self._names)}"
            target = self._resolve(ref, path)
            self.rules[self._names[key]] = self.expression(target, ref, depth)
        return self._names[key]

    def _resolve(self, ref: str, path: str) -> object:
        at: object = self._root
        if not ref.startswith("#"):
            raise Unsupported(f"{path}: only references inside the schema (#/…) are followed")
        for part in ref.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(at, Mapping) or key not in at:
                raise Unsupported(f"{path}: {ref} leads nowhere")
            at = at[key]
        return at

    def _constant(self, schema: JsonSchema, _path: str, _depth: int) -> str:
        return literal(json.dumps(schema["const"], ensure_ascii=False))

    def _enumeration(self, schema: JsonSchema, path: str, _depth: int) -> str:
        values = _list(schema["enum"], f"{path}.enum")
        return " | ".join(literal(json.dumps(value, ensure_ascii=False)) for value in values)

    def _alternatives(self, schema: JsonSchema, path: str, depth: int) -> str:
        keyword = "anyOf" if "anyOf" in schema else "oneOf"
        options = _list(schema[keyword], f"{path}.{keyword}")
        return " | ".join(
            f"({self.expression(option, f'{path}.{keyword}[{n}]', depth)})"
            for n, option in enumerate(options)
        )

    def _single(self, schema: JsonSchema, path: str, depth: int) -> str:
        parts = _list(schema["allOf"], f"{path}.allOf")
        if len(parts) != 1:
            raise Unsupported(f"{path}.allOf cannot be enforced here; merge the schemas")
        return self.expression(parts[0], f"{path}.allOf[0]", depth)

    def _types(self, schema: JsonSchema, path: str, depth: int) -> str:
        """Take each type of a list with the keywords that speak of that type."""
        spoken_of = {
            "object": {"properties", "required", "additionalProperties"},
            "array": {"items", "prefixItems", "minItems", "maxItems"},
            "string": {"minLength", "maxLength"},
        }
        kinds = _list(schema["type"], f"{path}.type")
        rest = {k: v for k, v in schema.items() if k not in ANNOTATIONS and k != "type"}
        all_spoken_of = set().union(*(spoken_of.get(str(kind), set()) for kind in kinds))
        if unknown := sorted(set(rest) - all_spoken_of):
            raise Unsupported(f"{path}: {', '.join(unknown)} cannot be enforced here")
        options = []
        for kind in kinds:
            own = {k: v for k, v in rest.items() if k in spoken_of.get(str(kind), set())}
            options.append(f"({self.expression({'type': kind, **own}, path, depth)})")
        return " | ".join(options)

    def _object(self, schema: JsonSchema, path: str, depth: int) -> str:
        properties = schema.get("properties", {})
        required = _list(schema.get("required", []), f"{path}.required", empty=True)
        extra = schema.get("additionalProperties", True)
        if not isinstance(properties, Mapping):
            raise Unsupported(f"{path}.properties: not an object")
        if missing := [str(name) for name in required if name not in properties]:
            raise Unsupported(f"{path}.required: {', '.join(missing)} not among the properties")
        if properties:
            members = [
                (self._member(str(name), value, path, depth), name in required)
                for name, value in properties.items()
            ]
            return f'"{{" ws {_members(members)} ws "}}"'
        if extra is False:
            return '"{" ws "}"'
        value = self._named(self.expression(extra, f"{path}.additionalProperties", depth))
        pair = f'string ws ":" ws {value}'
        return f'"{{" ws ({pair} (ws "," ws {pair})*)? ws "}}"'

    def _member(self, name: str, schema: object, path: str, depth: int) -> str:
        value = self._named(self.expression(schema, f"{path}.{name}", depth))
        return f'{literal(json.dumps(name, ensure_ascii=False))} ws ":" ws {value}'

    def _named(self, expression: str) -> str:
        """Give an expression a rule of its own, so that brackets do not pile up."""
        if expression in self.rules:
            return expression
        name = f"r{len(self.rules)}"
        self.rules[name] = expression
        return name

    def _array(self, schema: JsonSchema, path: str, depth: int) -> str:
        if "prefixItems" in schema:
            if schema.keys() & {"items", "minItems", "maxItems"}:
                raise Unsupported(f"{path}: prefixItems goes with no other keyword here")
            parts = _list(schema["prefixItems"], f"{path}.prefixItems")
            items = [self._named(self.expression(part, path, depth)) for part in parts]
            joined = ' ws "," ws '.join(items)
            return f'"[" ws {joined} ws "]"'
        item = self._named(self.expression(schema.get("items", True), f"{path}.items", depth))
        least, most = _bounds(schema, "minItems", "maxItems", path)
        if most == 0:
            return '"[" ws "]"'
        more = f'(ws "," ws {item}){_times(max(least - 1, 0), None if most is None else most - 1)}'
        return f'"[" ws ({item} {more}){"?" if least == 0 else ""} ws "]"'

    def _string(self, schema: JsonSchema, path: str, _depth: int) -> str:
        form = TEXT_FORMATS.get(str(schema.get("format")))
        if form is not None:
            return f'"\\"" {form} "\\""'
        least, most = _bounds(schema, "minLength", "maxLength", path)
        return "string" if (least, most) == (0, None) else f'"\\"" char{_times(least, most)} "\\""'


def _kind(narrowing: JsonSchema, path: str) -> str:
    """Say what sort of schema it is: the keyword or the type that decides."""
    for keyword in ("$ref", "const", "enum", "anyOf", "oneOf", "allOf"):
        if keyword in narrowing:
            return keyword
    kind = narrowing.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        return "types"
    if kind is None:
        guesses = {"properties": "object", "additionalProperties": "object", "items": "array"}
        return next((guess for key, guess in guesses.items() if key in narrowing), "value")
    if kind not in ("object", "array", "string", "integer", "number", "boolean", "null"):
        raise Unsupported(f"{path}.type: {kind!r} is no JSON type")
    return str(kind)


def _members(members: Sequence[tuple[str, bool]]) -> str:
    """Join members, each with whether it is required, so that the commas come out right.

    Optional ones before the first required one bring their comma after them, the others before.
    """
    separator = ' ws "," ws '
    first = next((n for n, (_, required) in enumerate(members) if required), None)
    if first is None:
        # any subset: either member n leads and later ones may follow, or a later one leads
        heads = [
            member + "".join(f"({separator}{later})?" for later, _ in members[n + 1 :])
            for n, (member, _) in enumerate(members)
        ]
        return f"({' | '.join(heads)})?"
    before = "".join(f"({member}{separator})? " for member, _ in members[:first])
    after = "".join(
        f"{separator}{member}" if required else f"({separator}{member})?"
        for member, required in members[first + 1 :]
    )
    return before + members[first][0] + after


def _times(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _bounds(schema: JsonSchema, low: str, high: str, path: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    for value in (least, 0 if most is None else most):
        if not isinstance(value, int) or not 0 <= value <= MAX_REPEATS:
            raise Unsupported(f"{path}: {low} and {high} go from 0 to {MAX_REPEATS}")
    if most is not None and most < least:  # type: ignore[operator]  # both are int by now
        raise Unsupported(f"{path}: {high} is below {low}")
    return least, most  # type: ignore[return-value]  # both are int by now


def _list(value: object, path: str, *, empty: bool = False) -> Sequence[object]:
    if isinstance(value, Sequence) and not isinstance(value, str) and (value or empty):
        return value
    raise Unsupported(f"{path}: not a list with something in it")
