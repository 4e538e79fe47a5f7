"""The ports that `cmd:` workers serve on: each is had by one living worker at a time."""

from __future__ import annotations

import socket

LAST_PORT = 65535


class NoPort(Exception):
    """Every port from the first one on is taken, or the very one that is needed."""


class Ports:
    """Knows what it has given away; a worker may take a while to bind what it was given."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def give(self, first: int | None) -> int:
        """Give the first free one from `first` on, or any. Raises NoPort."""
        if first is None:
            port = self._any()
        else:
            free = (port for port in range(first, LAST_PORT + 1) if self._is_free(port))
            port = next(free, 0)
        if not port:
            raise NoPort(f"no port is free from {first} on (startPort)")
        self._given.add(port)
        return port

    def claim(self, port: int) -> None:
        """Give this very port. Raises NoPort when a living worker has it.

        Engines that share a port do so silently: then anyone of them answers.
        """
        if port in self._given:
            raise NoPort(f"port {port} is another worker's; give each model a port of its own")
        self._given.add(port)

    def take_back(self, port: int) -> None:
        """Take it back, when its worker is gone."""
        self._given.discard(port)

    def _any(self) -> int:
        port = 0
        while not port or port in self._given:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        return port

    def _is_free(self, port: int) -> bool:
        if port in self._given:
            return False
        with socket.socket() as probe:
            # as servers do it: what only lingers after a worker that is gone is no hindrance
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True
