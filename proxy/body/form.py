"""Follows a multipart body as it comes and keeps the few fields that the proxy reads."""

from __future__ import annotations

from collections.abc import Sequence

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState, parse_options_header

from proxy.body.edit import Edit
from proxy.body.peek import FIELD_BYTES, FIELDS, Peek, peek_texts
from proxy.body.splice import Span, Splice
from proxy.errors import BadRequest


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

    def _part_begins(self) -> None:
        self._name = self._value_start = None

    def _header_name_comes(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value_comes(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            name = options.get(b"name", b"").decode("utf-8", "replace")
            if name in FIELDS:
                self._name = name
                self._fields[name] = b""
        self._header = self._value = b""

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
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
