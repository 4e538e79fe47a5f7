"""A request's body: kept as the bytes that came, and peeked into for what routing needs."""

from proxy.body.form import FormPeek
from proxy.body.peek import Peek, peek_json
from proxy.body.reading import Body, read_blindly, read_body

__all__ = ["Body", "FormPeek", "Peek", "peek_json", "read_blindly", "read_body"]
