"""Macros: what may stand where, in which order they see each other, and what becomes of types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.llama_swap.house import house
from tests.proxy.served import Hotseat, served

CONFIG = """
startPort: 39400
macros:
  word: global
  from-above: ${word}-and-more
  own_id: id-of-${MODEL_ID}
  number: 7
  half: 0.5
  yes: true
  serve: ECHO
groups: {all: {swap: false, members: [a, b, org/c]}}
models:
  a:
    cmd: "${serve} --reply ${from-above}"
    name: "The ${own_id}"
    env: ["GREETING=${word} ${env.HOTSEAT_TEST}", "AT=${PORT}"]
    metadata: {number: "${number}", half: "${half}", yes: "${yes}", text: "n${number}"}
  b:
    macros: {word: local, extra: "${word}/x"}
    cmd: "${serve} --reply ${from-above} --extra ${extra}"
    aliases: ["b-${number}"]
    filters: {setParams: {seed: "${number}", text: "${word}"}}
  org/c:
    cmd: |
      # a comment with an ${unknown} macro
      ${serve} \\
        --reply 'two words' \\
        --more "${MODEL_ID}"
      # ${another}
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve models whose entries are full of macros."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOTSEAT_TEST", "from outside")
        async with served(house(CONFIG), tmp_path_factory.mktemp("macros")) as one:
            yield one


async def argv(hotseat: Hotseat, model: str) -> list[str]:
    return (await hotseat.get(f"/upstream/{model}/process")).body["argv"]


async def metadata(hotseat: Hotseat, model: str) -> dict[str, Any]:
    entries = (await hotseat.get("/v1/models")).body["data"]
    return next(entry["meta"]["llamaswap"] for entry in entries if entry["id"] == model)


async def test_a_macro_may_use_those_above_it(hotseat: Hotseat) -> None:
    """Macros in macros are filled in."""
    assert (await hotseat.chat("a")).text == "global-and-more"


async def test_a_models_own_macro_takes_the_place_of_a_global_one(hotseat: Hotseat) -> None:
    """Also in global ones that use it."""
    assert (await hotseat.chat("b")).text == "local-and-more"
    assert "local/x" in await argv(hotseat, "b")


async def test_the_models_id_is_a_macro(hotseat: Hotseat) -> None:
    """In a command and within other macros."""
    listed = (await hotseat.get("/v1/models")).body["data"]

    assert listed[0]["name"] == "The id-of-a"
    assert (await argv(hotseat, "org/c"))[-2:] == ["--more", "org/c"]


async def test_types_are_kept_where_a_macro_stands_alone(hotseat: Hotseat) -> None:
    """A number stays a number, and becomes text within a text."""
    meta = await metadata(hotseat, "a")

    assert (meta["number"], meta["half"], meta["yes"]) == (7, 0.5, True)
    assert meta["text"] == "n7"


async def test_types_are_kept_in_filters(hotseat: Hotseat) -> None:
    """What is set in a request is a number too."""
    model = (await hotseat.get("/v1/models/b-7")).body

    assert model["id"] == "b"


async def test_the_environment_is_a_macro(hotseat: Hotseat) -> None:
    """In an entry of `env`, beside others."""
    said = await hotseat.get("/upstream/a/environment/GREETING")

    assert said.body == "global from outside"


async def test_the_port_is_one_wherever_it_stands(hotseat: Hotseat) -> None:
    """In the command, in `env` and in the address."""
    told = (await hotseat.get("/upstream/a/environment/AT")).body
    words = await argv(hotseat, "a")

    assert words[words.index("--port") + 1] == told
    assert (await hotseat.running())["a"]["proxy"].endswith(f":{told}")


async def test_ports_begin_at_start_port(hotseat: Hotseat) -> None:
    """The first that is free from there on; each has its own."""
    ports = [int((await argv(hotseat, m))[1]) for m in ("a", "b", "org/c")]

    assert len({*ports}) == 3
    assert all(39400 <= port < 39500 for port in ports)


async def test_comments_in_a_command_are_no_part_of_it(hotseat: Hotseat) -> None:
    """Nor are macros in them; a backslash joins lines, and quotes keep words together."""
    words = await argv(hotseat, "org/c")

    assert words[2:] == ["--reply", "two words", "--more", "org/c"]
