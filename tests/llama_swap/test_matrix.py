"""The matrix: which sets of models may be loaded together, and whom it costs least to send."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llama_swap.house import house
from tests.llama_swap.test_groups import MODELS, after, walk
from tests.proxy.served import served

WALKS = {
    "together": ("{pair: a & b}", "a b:ab c:c"),
    "either, not both": ("{one: a | b}", "a b:b"),
    "one of two beside a third": ("{s: (a | b) & c}", "c a:ac b:bc"),
    "two sets": ("{s: a & b, t: b & c}", "a b:ab c:bc a:ab"),
    "a set in a set": ("{inner: a & b, outer: +inner & c}", "a b:ab c:abc d:d"),
    "or binds less than and": ("{s: a & b | c & d}", "a b:ab c:c d:cd"),
    "who is in no set is alone": ("{s: a & b}", "a d:d a:a"),
}


@pytest.mark.parametrize("case", WALKS)
async def test_who_stays(case: str, tmp_path: Path) -> None:
    """Step by step, who is there after whose call."""
    sets, steps = WALKS[case]
    async with served(house(f"matrix: {{sets: {sets}}}", **MODELS), tmp_path) as hotseat:
        assert await walk(hotseat, steps) == steps


async def test_the_dearer_one_stays(tmp_path: Path) -> None:
    """Of two sets that have the called one, the one is taken whose outsiders cost less."""
    matrix = """
matrix:
  vars: {big: b}
  evict_costs: {big: 10, c: 2}
  sets: {with_b: a & big, with_c: a & c, both: big & c}
"""
    async with served(house(matrix, **MODELS), tmp_path) as hotseat:
        assert await after(hotseat, "bc") == "bc"
        assert await after(hotseat, "a") == "ab"


async def test_vars_stand_for_ids_that_cannot_be_written(tmp_path: Path) -> None:
    """An id with a slash or a colon needs one; a var wins over a model of that name."""
    config = """
matrix:
  vars: {x: "org/a:q4", b: c}
  sets: {s: x & b}
models:
  "org/a:q4": {cmd: "ECHO --reply x"}
  b: {cmd: "ECHO --reply b"}
  c: {cmd: "ECHO --reply c"}
"""
    async with served(house(config), tmp_path) as hotseat:
        for name in ("org/a:q4", "c"):
            await hotseat.chat(name)
        together = [*await hotseat.running()]
        await hotseat.chat("b")

        assert together == ["c", "org/a:q4"]
        assert [*await hotseat.running()] == ["b"]


async def test_the_matrix_may_stand_in_routing(tmp_path: Path) -> None:
    """Where newer files have it."""
    routing = "routing: {router: {use: matrix, settings: {matrix: {sets: {s: a & b}}}}}\n"
    async with served(house(routing, **MODELS), tmp_path) as hotseat:
        assert await walk(hotseat, "a b:ab") == "a b:ab"
