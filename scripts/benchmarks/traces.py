"""The workloads: which models there are, and who asks what and when. All the same every time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scripts.benchmarks.client import Client, Outcome, Work
from scripts.benchmarks.models import MIB, PATIENCE_S, Model

SEED = 7

Play = Callable[[Client], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Trace:
    """A workload; `settings` go into Hotseat's swap.yaml."""

    name: str
    about: str
    models: Sequence[Model]
    play: Play
    settings: Mapping[str, object] = field(default_factory=dict)
    in_one_row: bool = False  # the report does not tell the models apart
    remark: Callable[[Sequence[Outcome], float], str] = lambda _outcomes, _speed: ""


# interleaved: the swaps that fairness to single requests would cost

EVEN, ODD = (Model(f"interleaved-{name}", load_s=10, at_once=10) for name in ("a", "b"))
SENTENCE = Work(serve_s=0.3, tokens=18, token_s=0.1)


async def interleaved(client: Client) -> None:
    asks = (client.ask((EVEN, ODD)[number % 2], SENTENCE) for number in range(40))
    await asyncio.gather(*asks)


# flood: a model that is asked without end, and another that is asked once

FLOODED, OTHER = (Model(f"flood-{name}", load_s=10) for name in ("a", "b"))
PARAGRAPH = Work(serve_s=0.5, tokens=26, token_s=0.1)
FLOODERS = 4
ANSWERS_BEFORE = 12  # of the flood, before the other model is asked
ANSWERS_AFTER = 8


async def flood(client: Client) -> None:
    begun, served = asyncio.Event(), asyncio.Event()

    async def keep_asking() -> None:
        while not served.is_set():
            await client.ask(FLOODED, PARAGRAPH)
            if len(client.outcomes) >= ANSWERS_BEFORE:
                begun.set()
        for _ in range(ANSWERS_AFTER // FLOODERS):
            await client.ask(FLOODED, PARAGRAPH)

    async def ask_once() -> None:
        await begun.wait()
        await client.ask(OTHER, PARAGRAPH)
        served.set()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(FLOODERS):
            tasks.create_task(keep_asking())
        tasks.create_task(ask_once())


def remark_on_flood(outcomes: Sequence[Outcome], speed: float) -> str:
    """Hold the other model's wait against patience + drain + load, as the first load took."""
    waits = {o.model: o.first_byte_s for o in reversed(outcomes)}
    waited_s, load_s = waits.get(OTHER.name), waits.get(FLOODED.name)
    if waited_s is None or load_s is None:
        return f"{OTHER.name} was not served"
    drain_s = (PARAGRAPH.serve_s + (PARAGRAPH.tokens - 1) * PARAGRAPH.token_s) / speed
    patience_s = PATIENCE_S / speed
    bound_s = patience_s + drain_s + load_s
    return (
        f"{OTHER.name} waited {waited_s:.2f} s; patience {patience_s:.2f} + drain {drain_s:.2f} "
        f"+ load and first byte {load_s:.2f} (as the first took) = {bound_s:.2f} s"
    )


# agent: three agents at once, five models, calls that follow from each other

PLANNER = Model("agent-planner", load_s=8)
CODER = Model("agent-coder", load_s=12)
VISION = Model("agent-vision", load_s=7)
PAINTER = Model("agent-painter", load_s=15, at_once=1, kind="picture")
EMBEDDER = Model("agent-embedder", load_s=3, at_once=8, kind="embeddings")
CALLS_OF_ONE = 20
AGENTS = 3
WORK = {
    PLANNER: Work(serve_s=0.6, tokens=20, token_s=0.1),
    CODER: Work(serve_s=1.0, tokens=50, token_s=0.1),
    VISION: Work(serve_s=1.5, tokens=10, token_s=0.1),
    PAINTER: Work(serve_s=8.0),
    EMBEDDER: Work(serve_s=0.2),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an agent, and how long it thinks afterwards."""

    model: Model
    think_s: float


def script(seed: int) -> Sequence[Step]:
    """Write what one agent does: plan, look something up, code, look at it, at times paint."""
    dice = random.Random(seed)  # noqa: S311  # a fixed script, not a secret
    models: list[Model] = []
    while len(models) < CALLS_OF_ONE:
        models += [PLANNER, *[EMBEDDER] * dice.randint(1, 2), *[CODER] * dice.randint(1, 4)]
        models += [VISION] * (dice.random() < 0.5) + [PAINTER] * (dice.random() < 0.3)
    return [Step(model, round(dice.uniform(0.2, 3.0), 2)) for model in models[:CALLS_OF_ONE]]


async def agent(client: Client) -> None:
    async def follow(steps: Sequence[Step]) -> None:
        for step in steps:
            await client.ask(step.model, WORK[step.model])
            await client.think(step.think_s)

    await asyncio.gather(*(follow(script(SEED + number)) for number in range(AGENTS)))


# crowd: everybody at once

CROWDED = [Model(f"crowd-{number:02}", load_s=5, at_once=10) for number in range(20)]
CROWD = 1000


async def crowd(client: Client) -> None:
    work = Work(serve_s=0.4, tokens=4, token_s=0.2)
    asks = (client.ask(CROWDED[number % len(CROWDED)], work) for number in range(CROWD))
    await asyncio.gather(*asks)


# fits: three models, of which two fit at a time

FITTING = [Model(f"fits-{name}", load_s=8, host_bytes=400 * MIB) for name in ("a", "b", "c")]
TYPISTS = 3
LINES = 16


async def fits(client: Client) -> None:
    async def type_lines(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311
        for _ in range(LINES):
            (model,) = dice.choices(FITTING, weights=[5, 4, 1])
            await client.ask(model, SENTENCE)
            await client.think(round(dice.uniform(0.5, 2.0), 2))

    await asyncio.gather(*(type_lines(SEED + number) for number in range(TYPISTS)))


TRACES = (
    Trace(
        "interleaved", "40 requests for two models in turn, all at once", (EVEN, ODD), interleaved
    ),
    Trace(
        "flood",
        f"{FLOODERS} clients ask one model without end, one asks another once",
        (FLOODED, OTHER),
        flood,
        remark=remark_on_flood,
    ),
    Trace("agent", f"{AGENTS} agents, {CALLS_OF_ONE} calls each to five models", [*WORK], agent),
    Trace(
        "crowd",
        f"{CROWD} clients at once, {len(CROWDED)} models",
        CROWDED,
        crowd,
        in_one_row=True,
    ),
    Trace(
        "fits",
        "three models of 400 MiB, a budget of 900 MiB",
        FITTING,
        fits,
        settings={"host": {"memory": "900MiB"}},
    ),
)
