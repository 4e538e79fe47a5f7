"""The macros of a whole file: which may be used where, and what they come to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from proxy.config.command import without_comments
from proxy.config.document import Document, Problem, Where
from proxy.config.environment import LIKE_A_VARIABLE, VARIABLE, released
from proxy.config.model import KINDS
from proxy.macros import RESERVED, UnknownMacro, expand, names_in, wrong_definition

Values = Mapping[str, object]
LATE: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("cmd", "proxy", "checkEndpoint", "env"), frozenset({"PORT"})),
    "cmdStop": frozenset({"PORT", "PID"}),
}
"""What of a model may hold macros that are known only when its worker runs."""
COMMANDS = ("cmd", "cmdStop")
CHECKED = (
    *(*COMMANDS, "proxy", "checkEndpoint", "name", "description", "metadata"),
    *("filters.stripParams", "filters.strip_params", "filters.setParamsByID"),
)
"""Where in a model an unknown macro is an error for llama-swap too."""
FREE = "x-"
"""How a key at the top begins that means nothing, and may hold anchors."""
PORT_STAYS = "keeps ${PORT} as it is: the port is known only when the worker starts"


@dataclass(frozen=True, slots=True)
class _Scope:
    """Which macros there are for a part of the file."""

    values: Values
    late: Collection[str] = ()
    has_port: bool = False  # a text of the model may hold ${PORT}, though it means nothing there


@dataclass(slots=True)
class _Expansion:
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    renamed: dict[Where, Where] = field(default_factory=dict)

    def file(self, data: Mapping[object, object]) -> dict[object, object]:
        """Expand a whole file."""
        raw = _definitions(data.get("macros"))
        values = self.defined(raw, ("macros",), {}, RESERVED)
        tree: dict[object, object] = {}
        for key, part in data.items():
            match key, part:
                case str(), _ if key.startswith(FREE):
                    pass
                case "macros", dict():
                    tree[key] = values
                case "models", dict():
                    tree[key] = {
                        name: self.model(str(name), entry, raw) for name, entry in part.items()
                    }
                case _:
                    tree[key] = self.tree(part, _Scope(values), (str(key),))
        return tree

    def defined(
        self, raw: Values, where: Where, known: Values, late: Collection[str] = ()
    ) -> dict[str, object]:
        """Give the macros their values; each may use those before it."""
        values = dict(known)
        for name, value in raw.items():
            told = wrong_definition(name, value)
            if told is None and isinstance(value, str):
                try:
                    values[name] = expand(value, values, late)
                    continue
                except UnknownMacro as error:
                    told = _told(error, raw)
            if told is not None:
                self.problems.append(Problem((*where, name), told))
            if name not in RESERVED:  # also when it is wrong: it is told once, not at each use
                values[name] = value if isinstance(value, str | int | float) else ""
        return values

    def model(self, model_id: str, entry: object, shared: Values) -> object:
        """Expand a model's entry with its own macros, which come before the file's."""
        where = ("models", model_id)
        if not isinstance(entry, dict):
            return entry
        own = _definitions(entry.get("macros"))
        values = self._scoped(model_id, shared, own)
        has_port = _is_idle(entry) or _uses_port(entry.get("cmd"), values)
        tree: dict[object, object] = {}
        for key, part in entry.items():
            late = LATE.get(str(key), frozenset())
            scope = _Scope(values, late if has_port else late - {"PORT"}, has_port=has_port)
            text = without_comments(part) if key in COMMANDS and isinstance(part, str) else part
            if key == "macros" and isinstance(part, dict):
                tree[key] = {name: values[name] for name in own if name in values}
            else:
                tree[key] = self.tree(text, scope, (*where, str(key)))
        return tree

    def _scoped(self, model_id: str, shared: Values, own: Values) -> dict[str, object]:
        """Define the file's macros anew for a model; those of the same name stand in their place.

        What is wrong with the file's own is told once, for the file.
        """
        told = _Expansion()
        values = told.defined({**shared, **own}, (), {"MODEL_ID": model_id}, ("PORT", "PID"))
        mine = [p for p in told.problems if p.where[0] in own]
        where = ("models", model_id, "macros")
        self.problems += [Problem((*where, *p.where), p.message) for p in mine]
        return values

    def tree(self, tree: object, scope: _Scope, where: Where) -> object:
        match tree:
            case str():
                return self.text(tree, scope, where)
            case list():
                return [self.tree(v, scope, (*where, str(i))) for i, v in enumerate(tree)]
            case dict() if where[2:] == ("filters", "setParamsByID"):
                return self.keyed(tree, scope, where)
            case dict():
                return {k: self.tree(v, scope, (*where, str(k))) for k, v in tree.items()}
            case _:
                return tree

    def keyed(self, tree: dict[object, object], scope: _Scope, where: Where) -> object:
        """Expand the keys too."""
        expanded: dict[object, object] = {}
        for key, value in tree.items():
            inner = (*where, str(key))
            name = self.text(key, scope, inner) if isinstance(key, str) else key
            if name in expanded:
                self.problems.append(Problem(inner, f"comes to {name!r}, as another key does"))
            expanded[name] = self.tree(value, scope, inner)
            self.renamed[inner] = (*where, str(name))
        return expanded

    def text(self, text: str, scope: _Scope, where: Where) -> object:
        try:
            value = expand(text, scope.values, RESERVED)
        except UnknownMacro as error:
            self.problems.append(Problem(where, str(error), passes=_passes(where)))
            return text
        for name in _left_over(value, scope):
            told = _out_of_place(name, scope)
            if told is None:
                self.notes.append(Problem(where, PORT_STAYS))
            else:
                self.problems.append(Problem(where, told, passes=_passes(where)))
        return value


def expanded(document: Document) -> tuple[Document, list[Problem], list[Problem]]:
    """Expand the macros of a file; gives its mistakes too, and what is to be noted."""
    if not isinstance(document.data, dict):
        return document, [], []
    expansion = _Expansion()
    data = released(expansion.file(document.data))
    places = {new: document.places[old] for old, new in expansion.renamed.items()}
    after = replace(document, data=data, places={**document.places, **places})
    return after, expansion.problems, expansion.notes


def _definitions(macros: object) -> dict[str, object]:
    return {str(k): v for k, v in macros.items()} if isinstance(macros, dict) else {}


def _told(error: UnknownMacro, raw: Values) -> str:
    if error.name not in raw:
        return str(error)
    return f"unknown macro ${{{error.name}}}: a macro may use only those that stand before it"


def _is_idle(entry: Mapping[object, object]) -> bool:
    """Tell whether it says nothing to run: it is told so, and not that no cmd has a port."""
    return all(entry.get(kind) is None for kind in KINDS)


def _uses_port(command: object, values: Values) -> bool:
    if not isinstance(command, str):
        return False
    try:
        names = {*names_in(str(expand(without_comments(command), values, RESERVED)))}
    except UnknownMacro:
        return True  # it is told; no more need be
    return "PORT" in names or not names <= RESERVED  # so is what is left of a wrong macro


def _left_over(value: object, scope: _Scope) -> Iterator[str]:
    """Name the macros that cannot be known in this place."""
    if isinstance(value, str):
        yield from sorted(RESERVED.intersection(names_in(value)) - {*scope.late})
        yield from (match[0] for match in LIKE_A_VARIABLE.finditer(value))


def _out_of_place(name: str, scope: _Scope) -> str | None:
    """Say why it is a mistake to have it here; None: it is none."""
    match name:
        case "MODEL_ID" | "PORT" if "MODEL_ID" not in scope.values:
            return f"${{{name}}} is for models only"
        case "PID":
            return "${PID} is for cmdStop only"
        case "PORT" if scope.has_port:
            return None
        case "PORT":
            return "uses ${PORT} but cmd does not: it is only available when cmd uses it"
        case _ if VARIABLE.fullmatch(name):
            return f"{name}: the environment variable is not set"
        case _:
            return f"{name} names no variable: a name has letters, digits and _ only"


def _passes(where: Where) -> bool:
    """Tell whether llama-swap would let an unknown macro stand here."""
    match where:
        case ("models", _, *rest):
            path = ".".join(rest)
            return not any(path == one or path.startswith(f"{one}.") for one in CHECKED)
        case ("peers", _, "apiKey"):
            return False
        case _:
            return True
