"""A request's body: kept as it came, peeked into for what routing needs, edited on its way."""

from proxy.body.edit import Edit
from proxy.body.form import FormPeek
from proxy.body.parts import STORED, Inline, Odd, Picture, Reference, Remote
from proxy.body.peek import Peek, peek_json
from proxy.body.query import peek_query, renamed_in
from proxy.body.reading import Body, Change, body_of, bounded, read_blindly, read_body
from proxy.body.splice import Span, Splice

__all__ = [
    "STORED",
    "Body",
    "Change",
    "Edit",
    "FormPeek",
    "Inline",
    "Odd",
    "Peek",
    "Picture",
    "Reference",
    "Remote",
    "Span",
    "Splice",
    "body_of",
    "bounded",
    "peek_json",
    "peek_query",
    "read_blindly",
    "read_body",
    "renamed_in",
]
