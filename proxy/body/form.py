"""Follows a multipart body as it comes and keeps the few fields that the proxy reads."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState, parse_options_header

from proxy.body.edit import Edit
from proxy.body.parts import Picture
from proxy.body.peek import FIELD_BYTES, FIELDS, Peek, peek_texts
from proxy.body.splice import Span, Splice
from proxy.body.texts import SPOKEN, is_plain, unreadable
from proxy.errors import BadRequest

SPOKEN_BYTES = 256 << 10
"""So much is kept of what a form says to its model."""


class FormPeek:
    """Follows a multipart body and keeps its short `FIELDS`; the last of a name counts."""

    def __init__(self, content_type: str) -> None:
        """Raise BadRequest for a content type without a boundary."""
        _, options = parse_options_header(content_type)
        if not options.get(b"boundary"):
            raise BadRequest("multipart without a boundary", code="invalid_multipart")
        self.models: list[Span] = []  # where the values of `model` stand, all of them
        self._piece, self._before = b"", 0  # what is looked at, and how much came before it
        self._value_start: int | None = None
        self._fields: dict[str, bytes] = {}
        self._name: str | None = None  # of the part that is coming, if it is one that we keep
        self._header, self._value = b"", b""
        self._spoken: list[tuple[str, bytearray]] = []
        self._spoken_bytes = 0
        self._says: bytearray | None = None  # what the part that is coming says to the model
        self._is_named = False  # the part that is coming
        self._is_odd = False  # others may read it otherwise than we do, or more of it
        self._parser = python_multipart.MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name_comes,
                "on_header_value": self._header_value_comes,
                "on_header_end": self._header_ends,
                "on_part_data": self._data_comes,
                "on_part_end": self._part_ends,
            },
        )

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises BadRequest."""
        self._before += len(self._piece)
        self._piece = piece
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadRequest(f"not a valid form: {error}", code="invalid_multipart") from None

    def end(self) -> Peek:
        """Tell what was in it. Raises BadRequest when it breaks off."""
        if self._parser.state != MultipartState.END:
            raise BadRequest("the form breaks off before its end", code="invalid_multipart")
        self._piece = b""
        texts = {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}
        return peek_texts(texts)

    def splices(self, edit: Edit) -> Sequence[Splice]:
        """Put another name where `model` stands; a form is told nothing else."""
        if edit.model is None:
            return ()
        return [Splice(one.start, one.end, edit.model.encode()) for one in self.models]

    def pictures(self) -> Sequence[Picture]:
        """Find none: what a form brings is what it is."""
        return ()

    def texts(self, names: Collection[str]) -> Sequence[str]:
        """Give the words in these fields, all of them. Raises BadRequest."""
        try:
            texts = [said.decode() for name, said in self._spoken if name in names]
        except UnicodeDecodeError:
            raise unreadable("the form") from None
        if self._is_odd or self._spoken_bytes > SPOKEN_BYTES:
            raise unreadable("the form")
        return texts

    def _part_begins(self) -> None:
        self._name = self._value_start = self._says = None
        self._is_named = False

    def _header_name_comes(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value_comes(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        header, raw_name = self._header.lower(), b""
        if header == b"content-disposition":
            _, options = parse_options_header(self._value)
            raw_name = options.get(b"name", b"")
            self._part_is(raw_name.decode("utf-8", "replace"))
        self._is_odd |= not is_plain(header, self._value, raw_name)
        self._header = self._value = b""

    def _part_is(self, name: str) -> None:
        self._is_odd |= self._is_named or name == "_charset_"
        self._is_named = True
        if name in FIELDS:
            self._name = name
            self._fields[name] = b""
        elif name.casefold() in SPOKEN:
            self._says = bytearray()
            self._spoken.append((name.casefold(), self._says))

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
        if self._says is not None and self._spoken_bytes <= SPOKEN_BYTES:
            self._says += data[start:end]
            self._spoken_bytes += end - start
        if self._name is None:
            return
        if data is self._piece:  # else it is what the parser held back, as it might be a boundary
            came = len(self._fields[self._name])
            self._value_start = self._before + start - came
        self._fields[self._name] += data[start:end]
        if len(self._fields[self._name]) > FIELD_BYTES:
            told = f"the form field {self._name} is too long"
            raise BadRequest(told, param=self._name)

    def _part_ends(self) -> None:
        if self._name == "model" and self._value_start is not None:
            size = len(self._fields["model"])
            self.models.append(Span(self._value_start, self._value_start + size))
