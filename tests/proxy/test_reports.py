"""What is going on, for people and programs: the queue, the swaps, the metrics, the log."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.metrics import Metrics
from proxy.swaps import Swap, SwapLog
from tests.proxy.served import Gate, Hotseat, first_event, served

TWO = "models: {a: {echo: {reply: I am a}}, b: {echo: {reply: I am b}}}"


async def queue(hotseat: Hotseat) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = (await hotseat.get("/api/queue")).body["waiting"]
    return entries


async def until_waiting_for(hotseat: Hotseat, words: list[str]) -> list[dict[str, Any]]:
    """Ask until those who wait wait for this; each question is a round trip, not a pause."""
    while True:
        waiting = await queue(hotseat)
        if [entry["waiting_for"] for entry in waiting] == words:
            return waiting


# The queue


async def test_the_queue_tells_of_everybody_who_waits(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Model by model in the order of the line: place, priority, what and whom it waits for."""
    held = gate()
    config = "models: {a: {concurrencyLimit: 1, echo: {}}, b: {echo: {}}, c: {echo: {}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        empty = await queue(hotseat)
        tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        tasks.create_task(hotseat.chat("b"))
        await until_waiting_for(hotseat, ["room"])
        tasks.create_task(hotseat.chat("b"))
        await until_waiting_for(hotseat, ["room", "room"])
        tasks.create_task(hotseat.chat("c"))
        tasks.create_task(hotseat.chat("a"))
        waiting = await until_waiting_for(hotseat, ["room", "room", "line", "requests"])
        held.open()

    assert empty == []
    assert [(e["model"], e["position"], e["others"]) for e in waiting] == [
        ("b", 1, ["a"]),
        ("b", 2, ["a"]),
        ("c", 1, ["b"]),
        ("a", 1, []),
    ]
    assert {e["priority"] for e in waiting} == {0}
    assert len({e["id"] for e in waiting}) == 4
    assert 10 > waiting[0]["waited_s"] >= waiting[1]["waited_s"] >= waiting[2]["waited_s"] >= 0
    assert [e["eta_s"] for e in waiting[:3]] == [None] * 3  # never loaded before


async def test_the_queue_tells_when_it_knows(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """After a first load there is a time: what is left of it, and of those before."""
    load = gate()
    config = f"models: {{a: {{concurrencyLimit: 1, echo: {{load_gate: {load.path}}}}}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", serve_s=0.4))
        [unknown] = await until_waiting_for(hotseat, ["load"])
        await load.pass_one()
        took_s = int((await first).headers["X-Load-Ms"]) / 1000
        await hotseat.post("/api/models/unload/a")
        for _ in range(3):
            tasks.create_task(hotseat.chat("a"))
        waiting = await until_waiting_for(hotseat, ["load"] * 3)
        await load.pass_one()

    assert unknown["eta_s"] is None
    etas = [entry["eta_s"] for entry in waiting]
    assert 0 <= etas[0] <= took_s + 0.05
    for nearer, later in itertools.pairwise(etas):
        assert later - nearer == pytest.approx(0.4, abs=0.15)


# Swaps


async def test_swaps_are_records(tmp_path: Path) -> None:
    """Oldest first: who came, for whose sake, who left, and what each part took in seconds."""
    config = "models: {a: {echo: {stop_s: 0.1}}, b: {echo: {load_s: 0.2, import_s: 0.1}}}"
    async with served(config, tmp_path) as hotseat:
        began = time.time()
        await hotseat.chat("a")
        answer = await hotseat.chat("b", serve_s=0.1)
        told = await hotseat.get("/api/swaps")

        first, second = told.body["swaps"]
        assert (first["model"], first["victims"]) == ("a", [])
        assert (second["model"], second["cause"], second["error"]) == ("b", "request", None)
        assert began <= first["at"] <= second["at"] <= time.time()
        [victim] = second["victims"]
        assert victim["model"] == "a"
        assert victim["stop_s"] >= 0.1
        assert second["import_s"] >= 0.1
        assert second["wait_s"] >= victim["stop_s"]
        assert second["load_s"] >= 0.2
        assert second["first_byte_s"] >= 0.1
        parts = ("spawn_s", "import_s", "wait_s", "load_s")
        assert sum(second[part] for part in parts) == pytest.approx(second["total_s"], abs=0.01)
        assert 1000 * second["load_s"] == pytest.approx(int(answer.headers["X-Load-Ms"]), abs=1)


async def test_a_swap_tells_how_long_its_victim_drained(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """From the order to go until the last answer was out."""
    held = gate()
    async with served("patience: 0\n" + TWO, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        second = tasks.create_task(hotseat.chat("b"))
        while (await hotseat.running())["a"]["state"] != "stopping":
            pass
        began = time.monotonic()
        await hotseat.get("/health")
        at_least_s = time.monotonic() - began
        held.open()
        await second
        swap = (await hotseat.get("/api/swaps")).body["swaps"][-1]

        assert swap["victims"][0]["drain_s"] >= at_least_s
        assert swap["drain_s"] <= swap["wait_s"]


async def test_a_failed_load_is_a_record_too(tmp_path: Path) -> None:
    """With its error, and the time that it took."""
    config = "models: {a: {echo: {load_s: 0.3, fail: bad_file, detail: no GGUF}}}"
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        [swap] = (await hotseat.get("/api/swaps")).body["swaps"]

        assert "no GGUF" in swap["error"]
        assert swap["total_s"] >= 0.3
        assert " swap came=" not in (await hotseat.get("/logs")).body


async def test_a_pinned_models_load_has_its_cause(tmp_path: Path) -> None:
    """Nobody asked: it is the config that wants it."""
    async with served("models: {p: {pin: true, echo: {}}}", tmp_path) as hotseat:
        line = await hotseat.log_line(" swap came=p")
        [swap] = (await hotseat.get("/api/swaps")).body["swaps"]

        assert "cause=pin" in line
        assert (swap["cause"], swap["victims"]) == ("pin", [])


async def test_the_log_has_one_line_for_each_swap(tmp_path: Path) -> None:
    """With its phases in seconds; a request without a swap has none."""
    async with served(TWO, tmp_path) as hotseat:
        for model in "aabba":
            await hotseat.chat(model)
        lines = (await hotseat.get("/logs")).body.split("\n")

        told = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines if " swap came=" in line]
        assert [(line["came"], line["left"]) for line in told] == [
            ("a", "nobody"),
            ("b", "a"),
            ("a", "b"),
        ]
        own = {"spawn_s", "import_s", "wait_s", "load_s", "first_byte_s", "total_s"}
        victims = {"drain_s", "stop_s", "memory_free_s"}
        assert [{key for key in line if key.endswith("_s")} for line in told] == [
            own,
            own | victims,
            own | victims,
        ]
        assert all(float(line["total_s"]) > 0 for line in told)


def test_the_last_200_swaps_are_kept() -> None:
    """Older ones go, so that a server that runs for months does not grow."""
    swaps = SwapLog(Metrics())

    for number in range(201):
        swaps.add(Swap(f"m{number}", "request"), since=0.0)

    assert [swap.model for swap in swaps] == [f"m{number}" for number in range(1, 201)]


# Metrics

KNOWN = {
    "hotseat_requests": ("counter", {"model", "status"}),
    "hotseat_queue_seconds": ("histogram", {"model"}),
    "hotseat_request_seconds": ("histogram", {"model"}),
    "hotseat_swap_seconds": ("histogram", {"model", "phase"}),
    "hotseat_departures": ("counter", {"model", "cause"}),
    "hotseat_out_of_memory": ("counter", {"model", "when"}),
    "hotseat_memory_bytes": ("gauge", {"device", "state"}),
    "hotseat_waiting_requests": ("gauge", {"model"}),
    "hotseat_safety_refusals": ("counter", {"model", "label"}),
}


class Scrape:
    """What /metrics said."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Give the samples of this name by the values of their labels, sorted by label."""
        samples = (sample for family in self.families.values() for sample in family.samples)
        return {
            tuple(value for _, value in sorted(s.labels.items())): s.value
            for s in samples
            if s.name == name
        }


async def scrape(hotseat: Hotseat) -> Scrape:
    answer = await hotseat.get("/metrics")
    assert answer.status == 200
    return Scrape(answer.body)


async def until_counted(hotseat: Hotseat, count: int) -> Scrape:
    """Scrape until so many requests have ended; each is a round trip, not a pause."""
    while True:
        known = await scrape(hotseat)
        if sum(known.values("hotseat_requests_total").values()) >= count:
            return known


async def test_metrics_have_the_names_that_are_promised(tmp_path: Path) -> None:
    """Types and labels too: dashboards are built on them."""
    config = "host: {memory: 8GiB}\n" + TWO
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        await hotseat.chat("b", out_of_memory=True)
        known = await until_counted(hotseat, 2)

        told = {name for name in known.families if not name.endswith("_created")}
        own = {name for name in told if not name.startswith("llamaswap_")}
        assert own == set(KNOWN)
        for name, (kind, labels) in KNOWN.items():
            family = known.families[name]
            assert (family.type, bool(family.documentation)) == (kind, True), name
            named = {frozenset(s.labels) - {"le"} for s in family.samples}
            assert named <= {frozenset(labels)}, name


async def test_metrics_count_requests_by_their_end(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Every request for a model counts once, as what its client saw; unknown names count not."""
    held = gate()
    async with served(TWO, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        await hotseat.chat("a")
        await hotseat.chat("a", status=400)
        await hotseat.chat("nope")
        await hotseat.chat("a", die_after=0)
        async with hotseat.stream("a", die_after=1, tokens=9) as stream:
            await first_event(stream)
            await hotseat.log_line("answer_cut")
        leaver = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        leaver.cancel()
        await hotseat.chat("b")
        known = await until_counted(hotseat, 6)

        assert known.values("hotseat_requests_total") == {
            ("a", "200"): 1,
            ("a", "400"): 1,
            ("a", "502"): 1,
            ("a", "cut"): 1,
            ("a", "499"): 1,
            ("b", "200"): 1,
        }
        for name in ("hotseat_queue_seconds_count", "hotseat_request_seconds_count"):
            assert known.values(name) == {("a",): 5, ("b",): 1}


async def test_metrics_tell_what_swaps_took(tmp_path: Path) -> None:
    """Each phase once for each swap, and those who left by their cause."""
    config = TWO.replace("a: {echo: {", "a: {echo: {load_s: 0.2, ")
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        await hotseat.chat("b")
        await hotseat.post("/api/models/unload/b")
        known = await until_counted(hotseat, 2)

        own = {"spawn", "import", "wait", "load", "first_byte", "total"}
        assert known.values("hotseat_swap_seconds_count") == {
            **{("a", phase): 1 for phase in own},
            **{("b", phase): 1 for phase in own | {"drain", "stop", "memory_free"}},
        }
        sums = known.values("hotseat_swap_seconds_sum")
        assert 0.2 <= sums["a", "load"] <= sums["a", "total"] < 5
        assert known.values("hotseat_queue_seconds_sum")["a",] >= 0.2
        assert known.values("hotseat_departures_total") == {("swap", "a"): 1, ("unload", "b"): 1}


async def test_metrics_tell_who_waits(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """By model, and nobody when nobody does."""
    held = gate()
    config = "models: {a: {concurrencyLimit: 1, echo: {}}, b: {echo: {}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        for model in "aab":
            tasks.create_task(hotseat.chat(model))
        await until_waiting_for(hotseat, ["room", "requests", "requests"])
        during = (await scrape(hotseat)).values("hotseat_waiting_requests")
        held.open()
        after = (await until_counted(hotseat, 4)).values("hotseat_waiting_requests")

    assert during == {("a",): 2, ("b",): 1}
    assert sum(after.values()) == 0


async def test_metrics_tell_memory(tmp_path: Path) -> None:
    """What there is and what is charged, by device, in bytes."""
    config = """
device: cpu
host: {memory: 1GiB}
models: {a: {memory: 200MiB, echo: {}}}
"""
    async with served(config, tmp_path) as hotseat:
        before = (await scrape(hotseat)).values("hotseat_memory_bytes")
        await hotseat.chat("a")
        after = (await scrape(hotseat)).values("hotseat_memory_bytes")

        assert before["host", "budget"] == after["host", "budget"] == 1 << 30
        assert (before["host", "charged"], after["host", "charged"]) == (0, 200 << 20)
        assert {device for device, _ in after} == {"host"}


@pytest.mark.parametrize(
    ("options", "echo", "when"),
    [
        ("", {"out_of_memory": True}, "request"),
        ("fail: out_of_memory", {}, "load"),
    ],
)
async def test_metrics_count_when_memory_ran_out(
    tmp_path: Path, options: str, echo: Mapping[str, Any], when: str
) -> None:
    """At a load or over a request."""
    async with served(f"models: {{a: {{echo: {{{options}}}}}}}", tmp_path) as hotseat:
        await hotseat.chat("a", **echo)
        known = await until_counted(hotseat, 1)

        assert known.values("hotseat_out_of_memory_total") == {("a", when): 1}
