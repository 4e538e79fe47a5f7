"""What swap.yaml may say to an echo: the switches of a whole process."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from workers import serve


class Allocation(serve.Options):
    """Memory of the card that `held.Card` plays."""

    path: str  # its folder
    size_bytes: NonNegativeInt = Field(alias="bytes")


class EchoOptions(serve.Options):
    """The switches; none of them: a worker that is up at once and behaves."""

    reply: str | None = None  # instead of an echo
    tells: bool = False  # answer every path with what arrived there
    file: str | None = None  # must exist, as a model's file must
    at_once: PositiveInt = 10_000  # requests served together; more of them wait in here

    import_s: NonNegativeFloat = 0
    load_s: NonNegativeFloat = 0
    stop_s: NonNegativeFloat = 0  # from SIGTERM on
    load_gate: str | None = None
    load_steps: PositiveInt = 3  # progress lines, at least

    ballast_bytes: NonNegativeInt = 0  # of the host's memory, held from load on
    allocate: Allocation | None = None  # likewise, of the card's

    fail: serve.Reason | None = None  # say so at load
    detail: str = "told to fail"
    exit_at_load: int | None = None  # leave without a word, with this status
    hang_at_load: bool = False
    ignore_sigterm: bool = False
    grandchild: bool = False  # leave a second process in our group
    noise_lines: int = 0  # of 1 kB on stdout, at load
    says: str | None = None  # a line on stdout, at load

    # at a port only
    listen_gate: str | None = None  # nobody is let in before it is passed
    health_status: int = 200  # of /health, when loaded
    health_hangs: bool = False  # /health takes the question and never answers
