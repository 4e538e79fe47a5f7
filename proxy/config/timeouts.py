"""How a worker or a peer is spoken to: how long is waited for what, and what it may hold."""

from __future__ import annotations

from proxy.config.section import Seconds, Section


class Timeouts(Section):
    """The section `timeouts`: seconds, 0: no limit."""

    connect: Seconds = 30.0
    keepalive: Seconds = 30.0
    response_header: Seconds = 0.0
    tls_handshake: Seconds = 10.0
    expect_continue: Seconds = 1.0
    idle_conn: Seconds = 90.0


class Compat(Section):
    """The section `compat` of a model."""

    ignore_websockets: bool = False
    """Whether a websocket neither starts the model nor keeps it."""
