"""Follows the form of an upload as it comes: the file's bytes go on, its short fields are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartState, parse_options_header

from proxy.errors import BadRequest

FILE: Final = "file"
FIELDS: Final = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
_FIELD_BYTES: Final = 256
_NAME_CHARACTERS: Final = 255


class UploadForm:
    """Reads a multipart body with one file; parts that nobody knows are passed over."""

    def __init__(self, content_type: str) -> None:
        """Raise BadRequest for what is no form."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            told = "send the file as multipart/form-data with the parts file and purpose"
            raise BadRequest(told, code="invalid_multipart")
        self.filename: str | None = None
        self._fields: dict[str, bytes] = {}
        self._has_file = False
        self._name = ""  # of the part that is coming
        self._header, self._value = b"", b""
        self._pieces: list[bytes] = []
        self._parser = python_multipart.MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name_comes,
                "on_header_value": self._header_value_comes,
                "on_header_end": self._header_ends,
                "on_part_data": self._data_comes,
            },
        )

    @property
    def fields(self) -> Mapping[str, str]:
        """Give the fields that have come."""
        return {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """Take the next bytes, and give those of the file among them. Raises BadRequest."""
        self._pieces = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadRequest(f"not a valid form: {error}", code="invalid_multipart") from None
        return self._pieces

    def end(self) -> None:
        """See that all has come. Raises BadRequest."""
        if self._parser.state != MultipartState.END:
            raise BadRequest("the form breaks off before its end", code="invalid_multipart")
        if not self._has_file:
            raise BadRequest("the form has no file", param=FILE, code="missing_file")

    def _part_begins(self) -> None:
        self._name = ""
        self._header = self._value = b""

    def _header_name_comes(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value_comes(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if self._name == FILE:
                self._file_begins(options.get(b"filename", b"").decode("utf-8", "replace"))
            elif self._name in FIELDS:
                self._fields[self._name] = b""
        self._header = self._value = b""

    def _file_begins(self, filename: str) -> None:
        if self._has_file:
            raise BadRequest("send one file at a time", param=FILE, code="invalid_multipart")
        self._has_file = True
        self.filename = _bare(filename) or None

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._pieces.append(data[start:end])
        elif self._name in FIELDS:
            self._fields[self._name] += data[start:end]
            if len(self._fields[self._name]) > _FIELD_BYTES:
                told = f"the form field {self._name} is too long"
                raise BadRequest(told, param=self._name, code="invalid_value")


def _bare(filename: str) -> str:
    """Leave out folders and what cannot be printed: it is told again, and opens nothing."""
    last = re.split(r"[/\\]", filename)[-1]
    return "".join(one for one in last if one.isprintable())[:_NAME_CHARACTERS]
