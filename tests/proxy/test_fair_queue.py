"""Who goes first, who stays, and how long anybody waits: wishes and limits on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.proxy.served import Answer, Gate, Hotseat, chat_body, served

ONE_AT_ONCE = "models: {a: {concurrencyLimit: 1, echo: {}}}"
TWO = "models: {a: {concurrencyLimit: 1, echo: {}}, b: {echo: {}}}"


async def ask(
    hotseat: Hotseat, model: str, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    """Ask for a chat with headers, and fields beside the usual ones."""
    body = chat_body(model, "hi") | fields
    return await hotseat.post("/v1/chat/completions", json=body, headers=headers)


async def until_waiting(hotseat: Hotseat, count: int) -> list[dict[str, Any]]:
    """Ask until so many wait; each question is a round trip, not a pause."""
    while True:
        waiting: list[dict[str, Any]] = (await hotseat.get("/api/queue")).body["waiting"]
        if len(waiting) == count:
            return waiting


class Crew:
    """Clients that ask one after the other, while a worker is kept busy."""

    def __init__(self, hotseat: Hotseat, tasks: asyncio.TaskGroup) -> None:
        self._hotseat = hotseat
        self._tasks = tasks
        self._waiting: list[asyncio.Task[None]] = []
        self.served: list[str] = []  # names, in the order of their answers
        self.answers: dict[str, Answer] = {}

    async def add(
        self, name: str, model: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> None:
        """Let somebody ask, and see that he waits."""
        count = len(self._waiting) + 1
        self._waiting.append(self._tasks.create_task(self._ask(name, model, headers, fields)))
        await until_waiting(self._hotseat, count)

    async def _ask(
        self, name: str, model: str, headers: dict[str, str] | None, fields: dict[str, Any]
    ) -> None:
        self.answers[name] = await ask(self._hotseat, model, headers, **fields)
        assert self.answers[name].status == 200, self.answers[name].body
        self.served.append(name)

    async def all_served(self) -> list[str]:
        await asyncio.gather(*self._waiting)
        return self.served


@contextlib.asynccontextmanager
async def busy(
    config: str, folder: Path, held: Gate, **headers: str
) -> AsyncIterator[tuple[Hotseat, Crew, asyncio.Task[Answer]]]:
    """Serve, with a request of model a that its worker is held up by."""
    async with served(config, folder) as hotseat, asyncio.TaskGroup() as tasks:
        echo = {"gate": str(held.path)}
        first = tasks.create_task(ask(hotseat, "a", headers, echo=echo))
        await held.reached()
        yield hotseat, Crew(hotseat, tasks), first


# Priority


async def test_priorities_order_the_queue(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """By number or word, in the header or the body; of equals, who came first."""
    held = gate()
    async with busy(ONE_AT_ONCE, tmp_path, held) as (_, crew, _):
        await crew.add("low", "a", {"X-Priority": "low"})
        await crew.add("usual", "a")
        await crew.add("normal", "a", {"X-Priority": "normal"})
        await crew.add("three", "a", {"X-Priority": "3"})
        await crew.add("high", "a", {"X-Priority": "high"})
        await crew.add("body 4", "a", priority=4)
        await crew.add("body high", "a", priority="high")
        await crew.add("header first", "a", {"X-Priority": "-9"}, priority=10)
        held.open()

        assert await crew.all_served() == [
            "high",
            "body high",
            "body 4",
            "three",
            "usual",
            "normal",
            "low",
            "header first",
        ]


async def test_a_key_has_a_priority(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """It holds where the request says none itself."""
    held = gate()
    config = f"apiKeys: [{{key: slow, priority: -2}}, {{key: fast, priority: 2}}]\n{ONE_AT_ONCE}"
    async with (
        served(config, tmp_path) as hotseat,
        aiohttp.ClientSession(hotseat.url, headers={"x-api-key": "slow"}) as session,
        asyncio.TaskGroup() as tasks,
    ):
        hotseat.session = session
        crew = Crew(hotseat, tasks)
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await crew.add("slow", "a")
        await crew.add("slow but urgent", "a", {"X-Priority": "1"})
        await crew.add("fast", "a", {"x-api-key": "fast"})
        held.open()

        assert await crew.all_served() == ["fast", "slow but urgent", "slow"]
        assert (await first).status == 200


async def test_a_model_has_a_priority(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Of two models that wait for the seat, the urgent one gets it first."""
    held = gate()
    config = "models: {a: {echo: {}}, b: {echo: {}}, c: {priority: 1, echo: {}}}"
    async with busy(config, tmp_path, held) as (hotseat, crew, _):
        await crew.add("b", "b")
        await crew.add("c", "c")
        line = await until_prepared(hotseat, "c")
        held.open()

        assert await crew.all_served() == ["c", "b"]
        assert [(e["model"], e["priority"], e["others"]) for e in line] == [
            ("c", 1, ["a"]),
            ("b", 0, ["c"]),
        ]


async def test_a_request_moves_its_model_in_the_line(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """One urgent request brings its model forward, and who waits with it too."""
    held = gate()
    config = "models: {a: {echo: {}}, b: {echo: {}}, c: {concurrencyLimit: 1, echo: {}}}"
    async with busy(config, tmp_path, held) as (_, crew, _):
        await crew.add("b", "b")
        await crew.add("c", "c")
        await crew.add("urgent", "c", {"X-Priority": "high"})
        held.open()

        assert await crew.all_served() == ["urgent", "c", "b"]


@pytest.mark.parametrize(
    ("headers", "fields", "named"),
    [
        ({"X-Priority": "soon"}, {}, "X-Priority"),
        ({"X-Priority": "11"}, {}, "X-Priority"),
        ({"X-Request-Timeout": "0"}, {}, "X-Request-Timeout"),
        ({"X-Request-Timeout": "never"}, {}, "X-Request-Timeout"),
        ({}, {"priority": "soon"}, "priority"),
        ({}, {"priority": [1]}, "priority"),
        ({}, {"keep_alive": "soon"}, "keep_alive"),
        ({}, {"keep_alive": True}, "keep_alive"),
    ],
)
async def test_odd_wishes_are_refused_before_a_load(
    tmp_path: Path, headers: dict[str, str], fields: dict[str, Any], named: str
) -> None:
    """400, with the header's or field's name, and no worker is started for it."""
    async with served(ONE_AT_ONCE, tmp_path) as hotseat:
        answer = await ask(hotseat, "a", headers, **fields)

        assert (answer.status, answer.error["param"]) == (400, named)
        assert named in answer.error["message"]
        assert await hotseat.running() == {}


@pytest.mark.parametrize(
    ("raw", "arrives"),
    [
        (
            b'{ "priority":"high", "model" : "a" ,"x": [2.50, "\xc3\xa9\\u0041"],"keep_alive":0}',
            b'{ "model" : "a" ,"x": [2.50, "\xc3\xa9\\u0041"]}',
        ),
        (
            b'\n{"model":"a", "y":{"priority": 1}, "priority":-1,\n"x":[{"keep_alive":"5m"}] }\n',
            b'\n{"model":"a", "y":{"priority": 1},\n"x":[{"keep_alive":"5m"}] }\n',
        ),
        (b'{"model":"a",  "n": 1e0}', b'{"model":"a",  "n": 1e0}'),
    ],
    ids=["first and last", "between, and deeper ones stay", "none"],
)
async def test_wishes_are_cut_out_of_the_body(tmp_path: Path, raw: bytes, arrives: bytes) -> None:
    """The worker never sees them; every other byte arrives as it was sent."""
    config = "models: {a: {capabilities: [rerank], echo: {}}}"
    async with served(config, tmp_path) as hotseat:
        headers = {"Content-Type": "application/json"}
        told = (await hotseat.post("/v1/rerank", data=raw, headers=headers)).body

        assert base64.b64decode(told["body"]) == arrives
        assert ["Content-Length", str(len(arrives))] in told["headers"]


async def test_wishes_of_an_upstream_request_are_the_workers_own(tmp_path: Path) -> None:
    """What goes to /upstream is not read: only the headers count, and the body stays whole."""
    async with served(ONE_AT_ONCE, tmp_path) as hotseat:
        raw = b'{"priority": "high", "keep_alive": 0}'
        told = await hotseat.post("/upstream/a/any", data=raw)
        odd = await hotseat.post("/upstream/a/any", data=raw, headers={"X-Priority": "x"})

        assert base64.b64decode(told.body["body"]) == raw
        assert (odd.status, odd.error["param"]) == (400, "X-Priority")


# Patience


@pytest.mark.parametrize(
    ("patience", "own", "order"),
    [
        ("60", "", ["a2", "a3", "b"]),
        ("0", "", ["b", "a2", "a3"]),
        ("60", "patience: 0, ", ["b", "a2", "a3"]),
        ("0", "patience: 60, ", ["a2", "a3", "b"]),
        ("auto", "", ["a2", "a3", "b"]),
    ],
)
async def test_patience_decides_whether_the_seated_goes_on(
    tmp_path: Path, gate: Callable[[], Gate], patience: str, own: str, order: list[str]
) -> None:
    """Requests for the seated model come later and go first, until patience is over."""
    held = gate()
    config = f"patience: {patience}\n" + TWO.replace("b: {", f"b: {{{own}")
    async with busy(config, tmp_path, held) as (hotseat, crew, _):
        await crew.add("b", "b")
        await until_prepared(hotseat, "b")
        await crew.add("a2", "a")
        await crew.add("a3", "a")
        held.open()

        assert await crew.all_served() == order


async def until_prepared(hotseat: Hotseat, model: str) -> list[dict[str, Any]]:
    """Ask until the model's process waits for memory; each question is a round trip."""
    while True:
        waiting: list[dict[str, Any]] = (await hotseat.get("/api/queue")).body["waiting"]
        if {"room"} == {entry["waiting_for"] for entry in waiting if entry["model"] == model}:
            return waiting


async def test_automatic_patience_follows_from_the_load(tmp_path: Path) -> None:
    """A model that loads in no time waits 2 s of an endless flood, not 5 and not for ever."""
    async with served(TWO, tmp_path) as hotseat:
        await hotseat.chat("b")
        await hotseat.chat("a")
        is_over = asyncio.Event()

        async def flood() -> None:
            while not is_over.is_set():
                assert (await hotseat.chat("a", serve_s=0.05)).status == 200

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(flood())
            answer = await hotseat.chat("b")
            is_over.set()

        assert answer.headers["X-Swap"] == "a"
        assert 2000 <= int(answer.headers["X-Queue-Ms"]) < 4500


# Who stays


async def test_keep_alive_0_unloads_right_after(tmp_path: Path) -> None:
    """Though the model has no ttl."""
    async with served(ONE_AT_ONCE, tmp_path) as hotseat:
        answer = await ask(hotseat, "a", keep_alive=0)
        line = await hotseat.log_line("unloaded model=a")

        assert answer.status == 200
        assert "cause=ttl" in line
        assert await hotseat.running() == {}


@pytest.mark.parametrize("keep_alive", ["5m", 300, -1])
async def test_keep_alive_outlives_the_ttl(tmp_path: Path, keep_alive: str | float) -> None:
    """The model stays while another one, idle since later, goes after the same ttl."""
    config = "device: cpu\nglobalTTL: 0.2\nmodels: {a: {echo: {}}, b: {echo: {}}}"
    async with served(config, tmp_path) as hotseat:
        kept = await ask(hotseat, "a", keep_alive=keep_alive)
        gone = await ask(hotseat, "b")
        await hotseat.log_line("unloaded model=b")

        assert (kept.status, gone.status) == (200, 200)
        assert list(await hotseat.running()) == ["a"]


async def test_keep_alive_holds_until_the_next_request(tmp_path: Path) -> None:
    """Who does not say anything gets the model's own ttl."""
    async with served("globalTTL: 0.1\n" + ONE_AT_ONCE, tmp_path) as hotseat:
        await ask(hotseat, "a", keep_alive="5m")
        await ask(hotseat, "a")

        assert "cause=ttl" in await hotseat.log_line("unloaded model=a")


async def test_keep_alive_of_an_openai_client(tmp_path: Path) -> None:
    """The field goes where openai-python puts what it does not know."""
    async with served(ONE_AT_ONCE, tmp_path) as hotseat:
        answer = await hotseat.openai().chat.completions.create(
            model="a",
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"keep_alive": 0, "priority": 1},
            extra_headers={"X-Request-Timeout": "5s"},
        )

        assert answer.choices[0].message.content == "echo: hi"
        assert "cause=ttl" in await hotseat.log_line("unloaded model=a")


# Deadlines


async def test_a_deadline_in_the_queue(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """504, and the place is free."""
    held = gate()
    async with busy(ONE_AT_ONCE, tmp_path, held) as (hotseat, _, first):
        late = await ask(hotseat, "a", {"X-Request-Timeout": "100ms"})
        waiting = (await hotseat.get("/api/queue")).body["waiting"]
        held.open()

        assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
        assert "0.1 s" in late.error["message"]
        assert waiting == []
        assert (await first).status == 200


async def test_a_deadline_during_a_load(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """504; the load is let finish, and serves who comes next."""
    load = gate()
    config = f"models: {{a: {{echo: {{load_gate: {load.path}}}}}}}"
    async with served(config, tmp_path) as hotseat:
        late, _ = await asyncio.gather(
            ask(hotseat, "a", {"X-Request-Timeout": "1.5"}), load.reached()
        )
        load.open()

        assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
        assert (await hotseat.chat("a")).status == 200
        assert (await hotseat.get("/logs")).body.count(" swap came=a") == 1


async def test_a_deadline_of_a_silent_worker(tmp_path: Path) -> None:
    """504 though it has the request; the work is cancelled and the seat is free."""
    async with served(ONE_AT_ONCE, tmp_path) as hotseat:
        await hotseat.chat("a")
        late = await ask(hotseat, "a", {"X-Request-Timeout": "0.2"}, echo={"hang_after": 0})
        again = await hotseat.chat("a")
        counts = (await hotseat.get("/upstream/a/counts")).body

        assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
        assert again.status == 200
        assert counts == {"started": 3, "finished": 2, "cancelled": 1}


async def test_a_deadline_in_a_streamed_answer(tmp_path: Path) -> None:
    """An error event and a cut after what there was; the seat is free."""
    async with served(ONE_AT_ONCE, tmp_path) as hotseat:
        await hotseat.chat("a")
        lines = await cut_stream(hotseat, "0.3", hang_after=1, tokens=3)
        again = await hotseat.chat("a")

        assert json.loads(lines[0])["choices"][0]["delta"] == {"content": "x"}
        assert [json.loads(line)["error"]["code"] for line in lines[1:]] == ["deadline_exceeded"]
        assert again.status == 200


async def test_a_deadline_of_one_who_hears_comments(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """His head is out: an error event and a cut, and no place that is kept."""
    held = gate()
    async with busy("waitingNotes: 0.05\n" + ONE_AT_ONCE, tmp_path, held) as (hotseat, _, first):
        lines = await cut_stream(hotseat, "0.2")
        waiting = (await hotseat.get("/api/queue")).body["waiting"]
        held.open()

        assert [json.loads(line)["error"]["code"] for line in lines] == ["deadline_exceeded"]
        assert waiting == []
        assert (await first).status == 200


async def test_a_deadline_that_is_met_changes_nothing(tmp_path: Path) -> None:
    """Who is served in time is served whole."""
    async with served(ONE_AT_ONCE, tmp_path) as hotseat:
        answer = await ask(hotseat, "a", {"X-Request-Timeout": "1m"})

        assert (answer.status, answer.text) == (200, "echo: hi")


async def cut_stream(hotseat: Hotseat, deadline: str, **echo: Any) -> list[str]:
    """Read a stream that must break off; give its events."""
    body = chat_body("a", "hi", **echo) | {"stream": True}
    headers = {"X-Request-Timeout": deadline}
    url, got = "/v1/chat/completions", list[bytes]()
    async with hotseat.session.post(url, json=body, headers=headers) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(got, response)
    lines = b"".join(got).decode().split("\n")
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


async def read_into(got: list[bytes], response: aiohttp.ClientResponse) -> None:
    while chunk := await response.content.readany():
        got.append(chunk)


# The bound


async def test_a_full_queue_tells_when_to_come_again(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """Retry-After follows from how long the requests before took."""
    held = gate()
    config = ONE_AT_ONCE.replace("a: {", "a: {queueLimit: 1, ")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        await hotseat.chat("a", serve_s=1.2)
        crew = Crew(hotseat, tasks)
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        await crew.add("second", "a")
        full = await hotseat.chat("a")
        held.open()

        assert (full.status, full.error["code"]) == (429, "queue_full")
        assert full.headers["Retry-After"] == "2"
        assert await crew.all_served() == ["second"]
        assert (await first).status == 200


async def test_a_full_queue_of_a_model_that_loads_counts_the_load(tmp_path: Path) -> None:
    """Load and service, measured before, are both in front of the next place."""
    config = "models: {a: {concurrencyLimit: 1, queueLimit: 1, echo: {load_s: 1.2}}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        await hotseat.chat("a", serve_s=1.2)
        await hotseat.post("/api/models/unload/a")
        crew = Crew(hotseat, tasks)
        await crew.add("first", "a")
        began = time.monotonic()
        full = await hotseat.chat("a")
        took_s = time.monotonic() - began

        assert (full.status, full.error["code"]) == (429, "queue_full")
        assert int(full.headers["Retry-After"]) in (3, 4)
        assert took_s < 1
        assert await crew.all_served() == ["first"]


async def test_a_place_is_free_again_when_somebody_leaves(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """The bound counts who waits now."""
    held = gate()
    config = "waitingNotes: 0.05\n" + ONE_AT_ONCE.replace("a: {", "a: {queueLimit: 1, ")
    async with busy(config, tmp_path, held) as (hotseat, crew, _):
        async with hotseat.stream("a") as leaver:
            assert (await leaver.content.readline()).startswith(b": queue 1")
        await until_waiting(hotseat, 0)
        await crew.add("second", "a")
        held.open()

        assert await crew.all_served() == ["second"]
