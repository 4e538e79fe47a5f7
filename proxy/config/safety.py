"""The section `safety`: what models must not be asked for, and must not paint.

A rule is a regular expression in the way of RE2, as llama-swap's are: no look-around and no
backreferences, and in return the time that it takes grows with the text alone, whatever is sent
and however it is written. Case does not count. Files lie relative to the config, and are read with
it: at the start and at each reload.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, Tag, model_validator
from pydantic_core import SchemaError, SchemaValidator, core_schema

from proxy.config.command import splits, words_of
from proxy.config.document import Problem, Where
from proxy.config.section import LONG, SHORT, Name, OwnSection, Seconds, by_form

if TYPE_CHECKING:
    from proxy.config.schema import Config

AT_TOP: Where = ("safety",)
PERSON = "identifiable_person"
"""The label of a refusal because of somebody's name."""
LABELS = ("sexual", "minors", "violence", "hate", "self_harm", "illegal")
"""What the check by a model tells apart, unless the config says otherwise."""
MOST_FILE_BYTES = 4 << 20
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_label(text: str) -> bool:
    """Tell whether a rule may be called so: labels stand in messages and metrics."""
    return _LABEL.fullmatch(text) is not None


def _label(text: str) -> str:
    if not is_label(text):
        raise ValueError("a label is 1 to 64 letters, digits, dots, dashes and underscores")
    return text


def compiled(pattern: str) -> SchemaValidator:
    """Make what tells whether a text holds something that fits. Raises ValueError."""
    try:
        found = SchemaValidator(
            core_schema.str_schema(pattern=f"(?i){pattern}", regex_engine="rust-regex")
        )
    except SchemaError as error:
        why = str(error).splitlines()[-1].removeprefix("error: ").strip()
        why = why.removeprefix("SchemaError: ")
        raise ValueError(f"is no regular expression in the way of RE2: {why}") from None
    if found.isinstance_python(""):
        raise ValueError("fits everything, even the empty text")
    return found


def _compiles(pattern: str) -> str:
    compiled(pattern)
    return pattern


Label: TypeAlias = Annotated[str, AfterValidator(_label)]


class RuleEntry(OwnSection):
    """An entry of `safety.rules`: one expression, or a file with one in each line."""

    label: Label
    pattern: Annotated[str, AfterValidator(_compiles)] | None = None
    file: Name | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.pattern is None) is (self.file is None):
            raise ValueError("it needs either pattern or file")
        return self


class CheckConfig(OwnSection):
    """The section `safety.check`: a chat model of this config that judges each prompt."""

    model: Name
    prompt: str | None = None  # None: ours; empty: it hears the text alone, as guard models want
    labels: tuple[Label, ...] = LABELS


class OutputConfig(OwnSection):
    """The section `safety.output`: a command that judges each picture before it leaves."""

    command: Annotated[str, AfterValidator(splits)]
    timeout: Annotated[Seconds, Field(gt=0)] = 30.0

    @property
    def argv(self) -> tuple[str, ...]:
        return words_of(self.command)


class SafetyConfig(OwnSection):
    """The section `safety`, of the file or of a model."""

    rules: tuple[RuleEntry, ...] = ()
    allow_identifiable_persons: bool | None = None  # None: as the file says, else no
    persons: Name | None = None  # a file with a name in each line
    check: CheckConfig | None = None
    output: OutputConfig | None = None


OwnSafety: TypeAlias = Annotated[
    Annotated[Literal[False], Tag(SHORT)] | Annotated[SafetyConfig, Tag(LONG)], by_form
]
"""A model's: what is said is added to the file's; false: not even that counts."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression."""

    label: str
    pattern: SchemaValidator


@dataclass(frozen=True, slots=True)
class Check:
    """The judgement of a model."""

    model_id: str
    prompt: str | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for the requests to one model."""

    rules: tuple[Rule, ...] = ()
    allows_persons: bool = False
    listed: frozenset[str] = frozenset()  # names of persons, as they are written
    check: Check | None = None
    output: OutputConfig | None = None

    @property
    def persons(self) -> frozenset[str]:
        """Name those who must not be asked for."""
        return frozenset() if self.allows_persons else self.listed


@dataclass(slots=True)
class SafetyRead:
    """What was read of a config, and what is wrong with it."""

    everywhere: Terms | None = None  # where pictures are painted
    own: dict[str, Terms | None] = field(default_factory=dict)  # by model; None: nothing counts
    problems: list[Problem] = field(default_factory=list)


def read_safety(config: Config) -> SafetyRead:
    """Read the files and put everything together; with problems it is not complete."""
    read = SafetyRead()
    reader = _Reader(config, read.problems)
    if config.safety is not None:
        read.everywhere = reader.terms(config.safety, AT_TOP, Terms())
    for model_id, model in config.models.items():
        own = model.safety
        if own is not None:
            base, where = read.everywhere or Terms(), ("models", model_id, *AT_TOP)
            read.own[model_id] = reader.terms(own, where, base) if own else None
    return read


@dataclass(frozen=True, slots=True)
class _Reader:
    config: Config
    problems: list[Problem]

    def terms(self, said: SafetyConfig, where: Where, base: Terms) -> Terms:
        """Add what is said to what holds already."""
        allows = said.allow_identifiable_persons
        return Terms(
            (*base.rules, *self._rules(said, where)),
            base.allows_persons if allows is None else allows,
            base.listed | self._persons(said, where),
            self._check(said, where) or base.check,
            self._output(said, where) or base.output,
        )

    def _rules(self, said: SafetyConfig, where: Where) -> Iterator[Rule]:
        for index, entry in enumerate(said.rules):
            if entry.pattern is not None:
                yield Rule(entry.label, compiled(entry.pattern))
            elif entry.file is not None:
                here: Where = (*where, "rules", str(index), "file")
                yield from self._rules_of(entry.label, entry.file, here)

    def _rules_of(self, label: str, name: str, where: Where) -> Iterator[Rule]:
        for number, line in self._lines(name, where):
            try:
                yield Rule(label, compiled(line))
            except ValueError as error:
                path = self.config.folder / name
                self.problems.append(Problem(where, str(error), number, path))

    def _persons(self, said: SafetyConfig, where: Where) -> frozenset[str]:
        if said.persons is None:
            return frozenset()
        return frozenset(line for _, line in self._lines(said.persons, (*where, "persons")))

    def _check(self, said: SafetyConfig, where: Where) -> Check | None:
        if said.check is None:
            return None
        name, config, here = said.check.model, self.config, (*where, "check", "model")
        model_id = config.resolve(name)
        if model_id is None:
            self.problems.append(Problem(here, config.absent(name, config.names)))
            return None
        if "chat" not in (config.models[model_id].words or ("chat",)):
            self.problems.append(Problem(here, f"{name} does not chat, so it cannot judge"))
        return Check(model_id, said.check.prompt, said.check.labels)

    def _output(self, said: SafetyConfig, where: Where) -> OutputConfig | None:
        if said.output is None:
            return None
        program = said.output.argv[0]
        path = str(self.config.folder / program) if "/" in program else program
        if shutil.which(path) is None:
            told = f"there is no program {program!r} on this machine"
            self.problems.append(Problem((*where, "output", "command"), told))
        return said.output

    def _lines(self, name: str, where: Where) -> Sequence[tuple[int, str]]:
        """Read the lines of a file that say something, with their numbers."""
        path = self.config.folder / name
        try:
            return _said_in(path)
        except OSError as error:
            told = f"{name} cannot be read: {error.strerror or error}"
        except UnicodeDecodeError:
            told = f"{name} is not UTF-8"
        self.problems.append(Problem(where, told))
        return ()


def _said_in(path: Path) -> Sequence[tuple[int, str]]:
    """Give the lines but for empty ones and those that begin with #. Raises OSError."""
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(MOST_FILE_BYTES + 1)
    if len(text) > MOST_FILE_BYTES:
        raise OSError(f"it has more than {MOST_FILE_BYTES} characters")
    lines = enumerate((line.strip() for line in text.split("\n")), 1)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def terms_for(read: SafetyRead, model_id: str, *, paints: bool) -> Terms | None:
    """Tell what holds for a request; None: nothing. What the file says is for pictures alone."""
    return read.own.get(model_id, read.everywhere if paints else None)


def notes_on_safety(config: Config) -> Iterator[Problem]:
    """Find who refuses persons, and cannot tell who is one."""
    read = config.safety_read
    said = [(AT_TOP, config.safety, read.everywhere)]
    said += [
        (("models", name, *AT_TOP), one, read.own[name])
        for name, model in config.models.items()
        if (one := model.safety)
    ]
    for where, safety, terms in said:
        refuses = safety is not None and safety.allow_identifiable_persons is False
        if refuses and terms is not None and not terms.persons and terms.check is None:
            told = "changes nothing: without persons or check nobody can tell who is meant"
            yield Problem((*where, "allowIdentifiablePersons"), told)


def describe(terms: Terms) -> str:
    """Say in short what holds."""
    labels = dict.fromkeys(rule.label for rule in terms.rules)
    counts = [f"{sum(r.label == one for r in terms.rules)} {one}" for one in labels]
    parts = [f"rules {', '.join(counts)}"] if counts else []
    if terms.persons:
        parts.append(f"{len(terms.persons)} persons")
    elif terms.allows_persons:
        parts.append("persons allowed")
    if terms.check is not None:
        parts.append(f"checked by {terms.check.model_id}")
    if terms.output is not None:
        parts.append(f"pictures checked by {terms.output.argv[0]}")
    return ", ".join(parts) or "nothing"
