"""A request's body: kept as it came, peeked into for what routing needs, edited on its way."""

from proxy.body.edit import Edit
from proxy.body.form import FormPeek
from proxy.body.peek import Peek, peek_json
from proxy.body.query import peek_query, renamed_in
from proxy.body.reading import Body, read_blindly, read_body
from proxy.body.splice import Splice

__all__ = [
    "Body",
    "Edit",
    "FormPeek",
    "Peek",
    "Splice",
    "peek_json",
    "peek_query",
    "read_blindly",
    "read_body",
    "renamed_in",
]
