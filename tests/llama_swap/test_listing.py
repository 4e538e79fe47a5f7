"""What /v1/models tells of each name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.llama_swap.house import house
from tests.proxy.served import Hotseat, served

CONFIG = """
includeAliasesInList: true
macros: {quant: Q4}
models:
  plain: {cmd: "ECHO"}
  full:
    cmd: "ECHO"
    name: Full Name
    description: "  talks  "
    aliases: [short, other]
    metadata: {quant: "${quant}", nested: {port_of: [1, true]}, type: mine}
    capabilities: {in: [text, image], out: [text], tools: true, context: 8192}
  hears:
    cmd: "ECHO"
    capabilities: {in: [audio], out: [text], reranker: true}
  hidden: {cmd: "ECHO", unlisted: true, aliases: [hidden-too]}
  words: {cmd: "ECHO", capabilities: [chat, vision]}
  by-id:
    cmd: "ECHO"
    filters: {setParamsByID: {"by-id:high": {effort: high}}}
peers:
  far: {proxy: "http://127.0.0.1:9", models: [m1, org/m2]}
selectors:
  any: {strategy: warm, targets: [plain, full], name: Any, description: whichever}
  secret: {strategy: warm, targets: [plain], unlisted: true}
"""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hotseat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hotseat]:
    """Serve one of every kind of name."""
    async with served(house(CONFIG), tmp_path_factory.mktemp("listing")) as one:
        yield one


async def listed(hotseat: Hotseat, path: str = "/v1/models") -> dict[str, dict[str, Any]]:
    answer = await hotseat.get(path)
    assert answer.body["object"] == "list"
    return {entry["id"]: entry for entry in answer.body["data"]}


async def test_all_that_can_be_asked_is_listed_in_order(hotseat: Hotseat) -> None:
    """Models, aliases, peers' models and selectors, by id, without the unlisted ones."""
    answer = await hotseat.get("/v1/models")
    ids = [entry["id"] for entry in answer.body["data"]]

    assert ids == sorted(ids)
    assert {"plain", "full", "short", "other", "far/m1", "far/org/m2", "any"} <= {*ids}
    assert "by-id:high" in ids
    assert not {"hidden", "hidden-too", "secret"} & {*ids}


async def test_both_paths_list_the_same(hotseat: Hotseat) -> None:
    """/models is /v1/models, and neither changes from call to call."""
    assert await listed(hotseat) == await listed(hotseat, "/models")


async def test_a_record_has_what_clients_read(hotseat: Hotseat) -> None:
    """What every one has, and no empty name or description."""
    plain = (await listed(hotseat))["plain"]

    assert plain["object"] == "model"
    assert isinstance(plain["created"], int)
    assert plain["owned_by"]
    assert plain["status"] == {"value": "unloaded"}
    assert not {"name", "description"} & plain.keys()


async def test_names_and_descriptions_are_told(hotseat: Hotseat) -> None:
    """The description without the blanks around it."""
    full = (await listed(hotseat))["full"]

    assert (full["name"], full["description"]) == ("Full Name", "talks")


async def test_metadata_is_told_and_ours_wins(hotseat: Hotseat) -> None:
    """Types are kept, macros are filled in, and `type` is what it is."""
    meta = (await listed(hotseat))["full"]["meta"]["llamaswap"]

    assert meta["quant"] == "Q4"
    assert meta["nested"] == {"port_of": [1, True]}
    assert (meta["type"], meta["aliases"]) == ("model", ["short", "other"])


async def test_an_alias_tells_whose_it_is(hotseat: Hotseat) -> None:
    """So that a client can show both as one."""
    meta = (await listed(hotseat))["short"]["meta"]["llamaswap"]

    assert (meta["type"], meta["modelID"]) == ("alias", "full")


async def test_a_peers_model_tells_whose_it_is(hotseat: Hotseat) -> None:
    """By the peer's name before it."""
    entry = (await listed(hotseat))["far/org/m2"]

    assert entry["name"] == "far: org/m2"
    assert entry["meta"]["llamaswap"]["type"] == "peer"
    assert entry["meta"]["llamaswap"]["peerID"] == "far"


async def test_a_selector_tells_how_it_selects(hotseat: Hotseat) -> None:
    """Its strategy and its targets."""
    entry = (await listed(hotseat))["any"]
    meta = entry["meta"]["llamaswap"]

    assert (entry["name"], entry["description"]) == ("Any", "whichever")
    assert (meta["type"], meta["strategy"]) == ("selector", "warm")
    assert meta["targets"] == ["plain", "full"]


async def test_modalities_are_told(hotseat: Hotseat) -> None:
    """As architecture, in the order of the file."""
    full = (await listed(hotseat))["full"]

    assert full["architecture"] == {
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "modality": "text+image->text",
    }


async def test_tools_and_context_are_told(hotseat: Hotseat) -> None:
    """Where clients look for them."""
    full = (await listed(hotseat))["full"]

    assert full["supported_parameters"] == ["tools", "tool_choice"]
    assert full["context_length"] == 8192
    assert full["meta"]["n_ctx"] == 8192


@pytest.mark.parametrize(
    ("model", "words"),
    [("full", {"chat", "vision"}), ("words", {"chat", "vision"}), ("hears", {"rerank"})],
)
async def test_capabilities_are_a_list_of_words(
    hotseat: Hotseat, model: str, words: set[str]
) -> None:
    """Ours, as some clients read a mapping's keys: whether said as words or as modalities."""
    told = (await listed(hotseat))[model]["capabilities"]

    assert isinstance(told, list)
    assert words <= {*told}


async def test_a_hidden_model_can_still_be_asked(hotseat: Hotseat) -> None:
    """Unlisted is not unusable, and what is loaded is listed so, its aliases too."""
    hidden = await hotseat.chat("hidden-too")
    await hotseat.chat("short")
    entries = await listed(hotseat)

    assert hidden.status == 200
    assert entries["full"]["status"] == {"value": "loaded"}
    assert entries["plain"]["status"] == {"value": "unloaded"}
    assert entries["any"]["status"] == {"value": "loaded"}


async def test_aliases_are_not_listed_unless_asked_for(hotseat: Hotseat, tmp_path: Any) -> None:
    """IncludeAliasesInList is off by itself."""
    text = house(CONFIG.replace("includeAliasesInList: true", ""))
    async with served(text, tmp_path) as plain:
        assert not {"short", "other", "by-id:high"} & (await listed(plain)).keys()
    assert "short" in await listed(hotseat)
