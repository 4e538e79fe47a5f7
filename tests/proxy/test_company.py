"""Groups and matrix on real processes: who is seated beside whom, and who has to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.config import ConfigError, load_config
from tests.proxy.served import Gate, Hotseat, served

MODELS = """
models:
  a: {echo: {reply: I am a}, aliases: [al]}
  b: {echo: {reply: I am b}}
  c: {echo: {reply: I am c}}
  org/d: {echo: {reply: I am d}}
"""


async def seated_after(hotseat: Hotseat, *names: str) -> set[str]:
    """Ask the models one after the other; tell who is there then."""
    for name in names:
        assert (await hotseat.chat(name)).status == 200
    return set(await hotseat.running())


# Groups


async def test_members_of_a_swapping_group_take_turns(tmp_path: Path) -> None:
    """Within a group, one is there at a time, unless the group says otherwise."""
    config = MODELS + "groups: {g: {members: [a, b]}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b") == {"b"}
        assert await seated_after(hotseat, "a") == {"a"}


async def test_members_sit_side_by_side_without_swap(tmp_path: Path) -> None:
    """With swap: false all members stay, though there is but one seat without such rules."""
    config = MODELS + "groups: {g: {members: [a, b, c], swap: false}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b", "c") == {"a", "b", "c"}


async def test_an_exclusive_group_clears_the_others(tmp_path: Path) -> None:
    """Whoever is of another group leaves, when a member of an exclusive one loads."""
    config = MODELS + "groups: {g: {members: [a, b], swap: false}, h: {members: [c]}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b") == {"a", "b"}
        assert await seated_after(hotseat, "c") == {"c"}


async def test_a_group_that_is_not_exclusive_comes_beside(tmp_path: Path) -> None:
    """It clears nobody, but is cleared; a warm exclusive neighbour clears nobody either."""
    config = MODELS + "groups: {g: {members: [a]}, h: {members: [c], exclusive: false}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "c") == {"a", "c"}
        assert await seated_after(hotseat, "a") == {"a", "c"}
        await hotseat.post("/api/models/unload/a")
        assert await seated_after(hotseat, "a") == {"a"}


async def test_a_persistent_group_stays(tmp_path: Path) -> None:
    """Nobody clears it, not even who is in no group and clears all others."""
    config = MODELS + "groups: {p: {members: [a], persistent: true, exclusive: false}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b", "org/d") == {"a", "org/d"}


async def test_models_without_a_group_take_turns(tmp_path: Path) -> None:
    """They are a group of their own."""
    config = MODELS + "groups: {g: {members: [c], exclusive: false}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b", "c") == {"b", "c"}


async def test_a_member_may_be_named_by_its_alias(tmp_path: Path) -> None:
    """It is the model that counts, whatever name it goes by."""
    config = MODELS + "groups: {g: {members: [al, b], swap: false}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "al", "b") == {"a", "b"}


async def test_groups_may_stand_under_routing(tmp_path: Path) -> None:
    """The newer place of the same keys."""
    config = MODELS + (
        "routing: {router: {use: group, settings: {groups: {g: {members: [a, b], swap: false}}}}}"
    )
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b") == {"a", "b"}


async def test_memory_counts_beside_the_rules(tmp_path: Path) -> None:
    """With a budget as well, who bears everybody still needs room."""
    config = """
host: {memory: 3GiB}
device: cpu
models:
  a: {echo: {}, memory: 1GiB}
  b: {echo: {}, memory: 1GiB}
  c: {echo: {}, memory: 2GiB}
groups: {g: {members: [a, b, c], swap: false}}
"""
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b") == {"a", "b"}
        assert len(await seated_after(hotseat, "c")) == 2


async def test_a_flood_on_an_exclusive_group_does_not_starve_the_other(tmp_path: Path) -> None:
    """However many ask for the one that is there, the other is served after its patience."""
    config = "patience: 0.2\n" + MODELS + "groups: {g: {members: [a]}, h: {members: [b]}}"
    async with served(config, tmp_path) as hotseat:
        await hotseat.chat("a")
        is_served = asyncio.Event()

        async def flood() -> None:
            while not is_served.is_set():
                assert (await hotseat.chat("a")).status == 200

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(flood())
            answer = await hotseat.chat("b")
            is_served.set()

        assert answer.text == "I am b"


async def test_who_is_expelled_finishes_first(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """A running answer is never cut for a member of another group."""
    held = gate()
    config = "patience: 0\n" + MODELS + "groups: {g: {members: [a]}, h: {members: [b]}}"
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        second = tasks.create_task(hotseat.chat("b"))
        waiting = []
        while not waiting:
            queue = (await hotseat.get("/api/queue")).body["waiting"]
            waiting = [one for one in queue if one["waiting_for"] == "room"]
        held.open()

        assert waiting[0]["others"] == ["a"]
        assert ((await first).text, (await second).text) == ("I am a", "I am b")


# Matrix


async def test_the_cheapest_set_is_chosen(tmp_path: Path) -> None:
    """Of two sets that hold the model the one is kept that costs least."""
    config = MODELS + "matrix: {evict_costs: {al: 9}, sets: {s: a & (b | c), t: b & c}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b") == {"a", "b"}
        assert await seated_after(hotseat, "c") == {"a", "c"}


async def test_of_equal_costs_the_longest_unused_goes(tmp_path: Path) -> None:
    """Who was used last stays, whatever its set is called."""
    config = MODELS + "matrix: {sets: {s: a & b, t: b & c, u: c & a}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b", "a", "c") == {"a", "c"}


async def test_in_no_set_a_model_runs_alone(tmp_path: Path) -> None:
    """And a model of a set does not stay beside it."""
    config = MODELS + "matrix: {sets: {s: a & b}}"
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "a", "b", "c") == {"c"}
        assert await seated_after(hotseat, "a") == {"a"}


async def test_vars_and_references_name_what_is_meant(tmp_path: Path) -> None:
    """A var names a model whose id is no word; a set may be part of another."""
    config = (
        MODELS
        + """
routing:
  router:
    use: matrix
    settings:
      groups: {unused: {members: [a]}}
      matrix: {vars: {x: org/d, a: b}, sets: {all: "+pair & c", pair: x & a}}
"""
    )
    async with served(config, tmp_path) as hotseat:
        assert await seated_after(hotseat, "org/d", "b", "c") == {"org/d", "b", "c"}
        assert await seated_after(hotseat, "a") == {"a"}


# Priorities of the queue


async def test_the_queues_priority_is_the_models(tmp_path: Path, gate: Callable[[], Gate]) -> None:
    """Whose model has more goes first, though it came last."""
    held = gate()
    fifo = "routing: {scheduler: {use: fifo, settings: {fifo: {priority: {b: -1, c: 2}}}}}"
    async with served(MODELS + fifo, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("a", gate=str(held.path)))
        await held.reached()
        others = []
        for name in "bc":
            others.append(tasks.create_task(hotseat.chat(name)))
            waiting = []
            while len(waiting) < len(others):
                waiting = (await hotseat.get("/api/queue")).body["waiting"]
        held.open()
        await asyncio.gather(first, *others)

        assert [one["priority"] for one in sorted(waiting, key=lambda one: one["model"])] == [
            -1,
            2,
        ]
        history = (await hotseat.get("/logs")).body
        assert history.index("swap came=c") < history.index("swap came=b")


def test_priorities_beyond_ours_keep_their_order(tmp_path: Path) -> None:
    """Larger numbers shrink in proportion, with a note; a model's own priority comes on top."""
    path = tmp_path / "swap.yaml"
    fifo = "routing: {scheduler: {settings: {fifo: {priority: {b: 50, c: 100, al: -100}}}}}"
    path.write_text(MODELS.replace("{echo: {reply: I am b}}", "{echo: {}, priority: 3}") + fifo)
    loaded = load_config(path)

    assert {n: loaded.config.priority_of(n) for n in "abc"} == {"a": -10, "b": 8, "c": 10}
    told = {note.where[-1]: note.message for note in loaded.notes if "priority" in note.where}
    assert told["b"] == "counts as 5: priorities go from -10 to 10"


# Mistakes


NEEDS_A_VAR = "a model with such an id needs a name of its own under `vars`"
MISTAKES = [
    ("groups: {g: {members: [zz]}}", "groups.g.members.0: 'zz' is no model"),
    ("groups: {g: {members: [a, al]}}", "groups.g.members.1: 'al' is a member twice"),
    (
        "groups: {g: {members: [a]}, h: {members: [b, al]}}",
        "groups.h.members.1: 'al' is a member of the group 'g' already",
    ),
    ("groups: {g: {swap: false}}", "groups.g.members: is missing"),
    ("groups: {g: {members: [a], swop: false}}", "groups.g.swop: unknown key; did you mean swap?"),
    (
        "groups: {g: {members: [a]}}\nmatrix: {sets: {s: a}}",
        "matrix: there are groups as well: leave out one of the two",
    ),
    (
        "groups: {g: {members: [a]}}\nrouting: {router: {use: group}}",
        "routing.router: groups or a matrix stand at the top level as well: keep those here alone",
    ),
    (
        "routing: {router: {use: lru}}",
        "routing.router.use: must be 'group' or 'matrix'",
    ),
    (
        "routing: {router: {use: matrix}}",
        "routing.router.use: is matrix, but settings.matrix is missing",
    ),
    (
        "routing: {router: {settings: {matrix: {sets: {s: a}}}}}",
        "routing.router.settings.matrix: counts only with routing.router.use: matrix",
    ),
    ("routing: {scheduler: {use: lifo}}", "routing.scheduler.use: must be 'fifo'"),
    (
        "routing: {scheduler: {settings: {fifo: {priority: {zz: 1}}}}}",
        "routing.scheduler.settings.fifo.priority.zz: 'zz' is no model",
    ),
    (
        "routing: {scheduler: {settings: {fifo: {priority: {a: 1, al: 1}}}}}",
        "routing.scheduler.settings.fifo.priority.al: 'a' has another name here too",
    ),
    ("matrix: {vars: {x: a}}", "matrix.sets: is missing"),
    (
        "matrix: {sets: {}}",
        "matrix.sets: is empty: name at least one set of models that may be seated at once",
    ),
    ("matrix: {sets: {s: a & zz}}", "matrix.sets.s: 'zz' is no model"),
    ("matrix: {sets: {s: a &}}", "matrix.sets.s: ends where a model is missing"),
    ("matrix: {sets: {s: a & | b}}", "matrix.sets.s: has '|' where a model is missing"),
    ("matrix: {sets: {s: a b}}", "matrix.sets.s: is over before 'b'"),
    ("matrix: {sets: {s: (a & b}}", "matrix.sets.s: has a ( without its )"),
    ("matrix: {sets: {s: +t}}", "matrix.sets.s: there is no set 't'"),
    ("matrix: {sets: {s: +t, t: a | +s}}", "matrix.sets.t: leads back to itself: s → t → s"),
    (
        "matrix: {sets: {s: org/d}}",
        f"matrix.sets.s: has '/', which means nothing here; {NEEDS_A_VAR}",
    ),
    ("matrix: {vars: {x: zz}, sets: {s: x}}", "matrix.vars.x: 'zz' is no model"),
    (
        "matrix: {vars: {x_y: a}, sets: {s: a}}",
        "matrix.vars.x_y: a var is 1 to 32 letters, digits, dots and dashes",
    ),
    ("matrix: {evict_costs: {zz: 2}, sets: {s: a}}", "matrix.evict_costs.zz: 'zz' is no model"),
    (
        "matrix: {evict_costs: {a: 0}, sets: {s: a}}",
        "matrix.evict_costs.a: must be greater than 0",
    ),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    """Each mistake names its place and what to do, and none is told twice."""
    path = tmp_path / "swap.yaml"
    path.write_text(MODELS + text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)

    line = MODELS.count("\n") + 1 + text.count("\n")
    assert str(caught.value).splitlines() == [f"{path}:{line}: {told}"]


def test_too_many_sets_are_a_mistake(tmp_path: Path) -> None:
    """An expression that stands for thousands of sets is told, and not tried out for ever."""
    names = [f"m{number}" for number in range(24)]
    pairs = [f"({one} | {other})" for one, other in zip(names[::2], names[1::2], strict=True)]
    models = "".join(f"  {name}: {{echo: {{}}}}\n" for name in names)
    path = tmp_path / "swap.yaml"
    path.write_text(f"models:\n{models}matrix: {{sets: {{s: {' & '.join(pairs)}}}}}")

    with pytest.raises(ConfigError, match="stands for more than 1000 sets"):
        load_config(path)
