"""What is counted and measured; the names are an interface, listed in README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "hotseat_requests", "Requests by their end.", ["model", "status"], registry=registry
        )
        self.queue_seconds = self._seconds(
            "queue", "From asking for a model to its turn, loading included.", "model"
        )
        self.request_seconds = self._seconds("request", "From asking to the last byte.", "model")
        self.swap_seconds = self._seconds(
            "swap", "What each part of a swap took.", "model", "phase"
        )
        self.departures = Counter(
            "hotseat_departures",
            "Workers that left, by cause.",
            ["model", "cause"],
            registry=registry,
        )
        self.out_of_memory = Counter(
            "hotseat_out_of_memory",
            "Times that memory ran out.",
            ["model", "when"],
            registry=registry,
        )
        self.safety_refusals = Counter(
            "hotseat_safety_refusals",
            "Requests that a rule of safety has refused.",
            ["model", "label"],
            registry=registry,
        )
        self.memory_bytes = Gauge(
            "hotseat_memory_bytes",
            "Memory of a device: its budget, and what workers are charged.",
            ["device", "state"],
            registry=registry,
        )
        self.waiting = Gauge(
            "hotseat_waiting_requests", "Requests without a turn.", ["model"], registry=registry
        )

    def _seconds(self, what: str, told: str, *labels: str) -> Histogram:
        return Histogram(
            f"hotseat_{what}_seconds", told, labels, buckets=SECONDS, registry=self._registry
        )

    def render(self) -> bytes:
        """Give all of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def add(self, tell: Callable[[], Iterable[Told]]) -> None:
        """Let `tell` say, at each scrape, what it knows of gauges beside ours."""
        self._registry.register(_Teller(tell))


Told = tuple[str, str, Sequence[str], Sequence[tuple[Sequence[str], float]]]
"""A gauge: its name, its help, its labels, and a value for each of their sets of values."""


class _Teller(Collector):
    """Asks at each scrape."""

    def __init__(self, tell: Callable[[], Iterable[Told]]) -> None:
        self._tell = tell

    def describe(self) -> Iterable[Metric]:
        """Say nothing: what there is to tell may not be known yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for name, told, labels, samples in self._tell():
            family = GaugeMetricFamily(name, told, labels=labels)
            for values, value in samples:
                family.add_metric(list(values), value)
            yield family
