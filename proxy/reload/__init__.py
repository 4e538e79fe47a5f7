"""Another config while the server runs: read again, compared, and put in place in one step."""

from proxy.reload.reloader import Outcome, Reloader, Rereading

__all__ = [
    "Outcome",
    "Reloader",
    "Rereading",
]
