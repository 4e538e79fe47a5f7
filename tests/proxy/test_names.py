"""Who is meant by a name: aliases, peers' models, selectors and profiles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.config import Config, PeerModel
from proxy.config.virtual import virtual_clashes
from proxy.errors import ModelNotFound
from proxy.routes.destination import Load, Local, Place, exact, find
from proxy.routes.feed import Feed
from proxy.routes.profiles import ActiveProfile
from tests.proxy.served import Gate, Hotseat, served

ECHO: Mapping[str, Any] = {"echo": {}}
FAR = "http://10.0.0.2:8080"
WHOLE: Mapping[str, Any] = {
    "models": {
        "a": {"aliases": ["a-too"], "filters": {"setParamsByID": {"a:high": {}}}, "echo": {}},
        "b": ECHO,
        "c": ECHO,
        "e": {"aliases": ["e-too"], "echo": {}},
    },
    "peers": {
        "far": {"proxy": FAR, "models": ["m", "org/n", "b", "both"]},
        "off": {"proxy": f"{FAR}/api/", "models": ["both"]},
    },
    "selectors": {
        "first": {"strategy": "pin", "targets": ["a-too", "b"]},
        "abroad": {"strategy": "pin", "targets": ["far/b"]},
        "hot": {"strategy": "warm", "targets": ["a-too", "b", "c"]},
        "crowd": {
            "strategy": "spillover",
            "targets": ["a", "b", "off/both"],
            "settings": {"spillover": 2},
        },
    },
    "profiles": {"p": {"pins": {"x": "b"}}},
    "gpu": {"memory": "20GiB"},
}
CONFIG = Config.model_validate(WHOLE)


def idle() -> Load:
    return Load({}, {})


def found(name: str, pins: Mapping[str, str] | None = None, load: Load | None = None) -> Place:
    return find(CONFIG, name, pins or {}, lambda: load or idle())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a", Local("a", "a")),
        ("a-too", Local("a", "a-too")),
        ("a:high", Local("a", "a:high")),
        ("b", Local("b", "b")),
        ("far/b", PeerModel("far", "b")),
        ("m", PeerModel("far", "m")),
        ("org/n", PeerModel("far", "org/n")),
        ("far/org/n", PeerModel("far", "org/n")),
        ("off/both", PeerModel("off", "both")),
        ("first", Local("a", "a-too")),
        ("abroad", PeerModel("far", "b")),
    ],
)
def test_a_name_leads_to_a_place(name: str, place: Place) -> None:
    """Ours before a peer's; the name that led there is kept, as it may have parameters."""
    assert found(name) == place


@pytest.mark.parametrize("name", ["both", "d", "", "far", "far/", "/m", "A", "a ", "n"])
def test_a_name_that_leads_nowhere(name: str) -> None:
    """What two peers have is nobody's without the peer's name; case and blanks count."""
    with pytest.raises(ModelNotFound):
        found(name)


@pytest.mark.parametrize(
    ("unknown", "near"), [("a-to", "a-too"), ("crowdd", "crowd"), ("far/org/m", "far/org/n")]
)
def test_near_names_are_told(unknown: str, near: str) -> None:
    """Aliases, selectors and peers' models are among them."""
    with pytest.raises(ModelNotFound, match=near):
        found(unknown)


def test_a_long_name_is_not_repeated_whole() -> None:
    """Nor is it compared with all that there is."""
    with pytest.raises(ModelNotFound) as caught:
        found("x" * 100_000)

    assert len(caught.value.message) < 400


def test_pins_come_before_everything() -> None:
    """A pin may lead to a selector, stand before a model, lead once only, or take away."""
    pins = {"gpt": "hot", "a": "b", "b": "c", "c": ""}

    assert found("gpt", pins) == Local("a", "a-too")
    assert found("a", pins) == Local("b", "b")
    assert found("b", pins) == Local("c", "c")
    assert exact(CONFIG, "a", pins) == Local("b", "b")
    assert exact(CONFIG, "gpt", pins) is None  # selectors do not count there
    for way in (lambda: found("c", pins), lambda: exact(CONFIG, "c", pins)):
        with pytest.raises(ModelNotFound, match="takes 'c' away"):
            way()


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        ({}, "a-too"),
        ({"b": "ready"}, "b"),
        ({"b": "starting"}, "b"),
        ({"b": "starting", "c": "ready"}, "c"),
        ({"a": "stopping", "c": "starting"}, "c"),
        ({"a": "stopping"}, "a-too"),
        ({"a": "ready", "b": "ready"}, "a-too"),
    ],
)
def test_the_warm_one(states: Mapping[str, str], chosen: str) -> None:
    """Ready before starting, in the order of the targets; else the first."""
    place = found("hot", load=Load(states, {}))

    assert isinstance(place, Local)
    assert place.asked == chosen


@pytest.mark.parametrize(
    ("states", "counts", "chosen"),
    [
        ({}, {}, "a"),
        ({"b": "ready"}, {}, "b"),
        ({"b": "ready"}, {"b": 1}, "b"),
        ({"b": "ready"}, {"b": 2}, "a"),
        ({"a": "ready", "b": "ready"}, {"a": 1, "b": 0}, "b"),
        ({"a": "ready", "b": "ready"}, {"a": 2, "b": 2}, "off/both"),
        ({"a": "ready", "b": "ready"}, {"a": 4, "b": 3, "off/both": 5}, "b"),
        ({"a": "ready", "b": "ready"}, {"a": 2, "b": 2, "off/both": 1}, "off/both"),
        ({"a": "stopping"}, {}, "b"),
        ({}, {"a": 1}, "a"),
        ({"a": "stopping", "b": "stopping"}, {"off/both": 9}, "off/both"),
    ],
)
def test_spilling_over(states: Mapping[str, str], counts: Mapping[str, int], chosen: str) -> None:
    """Those that are up are filled, the least busy first; then one that is not; then whoever."""
    assert found("crowd", load=Load(states, counts)).name == chosen


def clash(path: str, value: object) -> list[str]:
    """Tell what is wrong when the key at `path` has this value."""
    config: dict[str, Any] = {key: dict(part) for key, part in WHOLE.items()}
    section, name = path.split(".", 1)
    config[section][name] = value
    return [str(problem) for problem in virtual_clashes(Config.model_validate(config))]


def peer(*models: str) -> Mapping[str, Any]:
    return {"proxy": FAR, "models": models}


def selector(strategy: str, *targets: str) -> Mapping[str, Any]:
    return {"strategy": strategy, "targets": targets}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("selectors.e", selector("pin", "b"), "selectors.e: is a name of the model 'e'"),
        ("selectors.e-too", selector("pin", "b"), "is a name of the model 'e'"),
        ("selectors.m", selector("pin", "b"), "is a model of the peer 'far'"),
        ("selectors.both", selector("pin", "b"), "is a model of the peer 'far'"),
        ("selectors.far/m", selector("pin", "b"), "is a model of the peer 'far'"),
        ("selectors. ", selector("pin", "b"), "its name is empty"),
        ("selectors.s", selector("pin", "hot"), "selectors.s.targets.0: 'hot' is a selector"),
        ("selectors.s", selector("pin", "b", "bb"), "targets.1: 'bb' is no model; did you"),
        ("selectors.s", selector("pin", "both"), "'both' is no model"),
        ("selectors.s", selector("warm", "m"), "'m' is a peer's"),
        ("selectors.s", selector("spillover", "a", "a-too"), "targets.1: 'a-too' is the same"),
        ("profiles.s", {"pins": {"x": "nope"}}, "profiles.s.pins.x: 'nope' is no model"),
        ("profiles.s", {"pins": {"far/m": "a"}}, "is a model of the peer 'far', which stays"),
        ("profiles. ", {"pins": {"x": "a"}}, "its name is empty"),
        ("peers.far/org", peer("n"), "peers.far/org.models.0: 'far/org/n' may be of the peer"),
        ("models.far/m", ECHO, "peers.far.models.0: 'far/m' is a name of the model 'far/m'"),
    ],
)
def test_names_that_clash(path: str, value: object, told: str) -> None:
    """The mistake says where it is, and whose the name is already."""
    problems = clash(path, value)

    assert len(problems) == 1
    assert told in problems[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("selectors.s", selector("pin", "m", "a:high")),
        ("selectors.s", selector("spillover", "a", "m")),
        ("profiles.s", {"pins": {"a": "hot", "gpt": "far/m", "x": None, "y": ""}}),
        ("peers.third", peer("both", "a")),
    ],
)
def test_names_that_do_not_clash(path: str, value: object) -> None:
    """A pin may stand before a model, and a peer may have what we have, or others."""
    assert clash(path, value) == []


CROWD: Mapping[str, Any] = {"crowd": selector("spillover", "a", "b-too", "far/m")}


@pytest.mark.parametrize(
    ("config", "is_well"),
    [
        ({}, False),
        ({"gpu": {"memory": "20GiB"}}, True),
        ({"device": "cpu"}, True),
        ({"groups": {"g": {"members": ["a", "b"], "swap": False}}}, True),
        ({"groups": {"g": {"members": ["a", "b"]}}}, False),
        ({"groups": {"g": {"members": ["a"], "exclusive": False}}}, False),
        ({"matrix": {"sets": {"s": "a & b & c"}}}, True),
        ({"matrix": {"sets": {"s": "a & c", "t": "b & c"}}}, False),
        ({"selectors": {"crowd": selector("spillover", "a", "far/m")}}, True),
        ({"selectors": {"crowd": selector("warm", "a", "b")}}, True),
        ({"selectors": {"crowd": selector("spillover", "a", "pinned", "elsewhere")}}, True),
    ],
)
def test_who_spills_over_must_be_able_to_meet(config: Mapping[str, Any], *, is_well: bool) -> None:
    """Else each request over the limit would be a swap."""
    models = {
        "a": ECHO,
        "b": {"aliases": ["b-too"], "echo": {}},
        "c": ECHO,
        "pinned": {"pin": True, "echo": {}},
        "elsewhere": {"gpu": 1, "echo": {}},
    }
    whole = {"models": models, "peers": WHOLE["peers"], "selectors": CROWD, **config}
    problems = [str(problem) for problem in virtual_clashes(Config.model_validate(whole))]

    assert [problem.partition(":")[0] for problem in problems] == (
        [] if is_well else ["selectors.crowd.targets"]
    )


HOUSE = """
models:
  a: {aliases: [a-too], echo: {reply: a}}
  b: {echo: {reply: b}}
selectors:
  hot: {strategy: warm, targets: [a, b]}
profiles:
  swapped: {description: the other way, pins: {gpt: b, a: hot, b: null}}
"""


async def put_active(hotseat: Hotseat, body: str) -> tuple[int, Any]:
    async with hotseat.session.put("/api/profiles/active", data=body) as response:
        return response.status, await response.json()


async def test_a_profile_can_be_chosen_and_left(tmp_path: Path) -> None:
    """While it is active its names lead elsewhere; the listing tells them too."""
    async with served(HOUSE, tmp_path) as hotseat:
        before = await hotseat.get("/api/profiles")
        assert (await hotseat.chat("gpt")).status == 404
        assert await put_active(hotseat, '{"name": "swapped"}') == (200, {"active": "swapped"})
        answer = await hotseat.chat("gpt")
        listed = await hotseat.get("/v1/models")
        entries = {entry["id"]: entry for entry in listed.body["data"]}

        assert before.body == {
            "active": None,
            "profiles": [
                {
                    "id": "swapped",
                    "description": "the other way",
                    "pins": {"gpt": "b", "a": "hot", "b": ""},
                }
            ],
        }
        assert (answer.text, answer.body["model"]) == ("b", "b")
        assert (await hotseat.chat("a")).text == "b"  # the selector's warm one
        assert "profile" in (await hotseat.chat("b")).error["message"]
        assert list(entries) == ["a", "gpt", "hot"]
        assert entries["gpt"]["meta"]["llamaswap"]["type"] == "profile"
        assert entries["gpt"]["status"] == {"value": "loaded"}
        assert await put_active(hotseat, '{"name": null}') == (200, {"active": None})
        assert (await hotseat.chat("gpt")).status == 404
        assert (await hotseat.chat("b")).text == "b"


def test_another_config_has_no_active_profile() -> None:
    """A reload ends it, though the new file may have one of the same name."""
    active, again = ActiveProfile(Feed()), Config.model_validate(WHOLE)
    active.activate(CONFIG, "p")

    assert (active.name(CONFIG), active.pins(CONFIG)) == ("p", {"x": "b"})
    assert (active.name(again), active.pins(again)) == (None, {})


def test_listeners_hear_of_a_change_and_of_nothing_else() -> None:
    """To choose what is chosen already is no news."""
    feed = Feed()
    active = ActiveProfile(feed)
    with feed.listening(lambda _: True) as listener:
        for name in (None, "p", "p", None):
            active.activate(CONFIG, name)

        assert listener.take() == [
            ("profileChanged", {"active": "p"}),
            ("profileChanged", {"active": None}),
        ]


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("far:8080", "must be a URL"),
        ("ftp://far", "must be a URL"),
        ("http://", "must be a URL"),
        ("http://far:99999", "is no URL"),
        ("http://me:secret@far", "apiKey"),
        ("http://far/v1?x=1", "query"),
    ],
)
def test_where_a_peer_cannot_be(proxy: str, told: str) -> None:
    """The address is checked before anybody is asked there, and no password is repeated."""
    peers = {"far": {"proxy": proxy, "models": ["m"]}}
    with pytest.raises(ValidationError, match=told) as caught:
        Config.model_validate({"models": {"a": ECHO}, "peers": peers})

    assert "secret" not in caught.value.errors(include_input=False)[0]["msg"]


async def test_what_is_not_ours_cannot_be_loaded(tmp_path: Path) -> None:
    """The refusal says what the name is."""
    more = 'peers: {far: {proxy: "http://127.0.0.1:1", models: [m]}}'
    async with served(HOUSE + more, tmp_path) as hotseat:
        selector_told = await hotseat.post("/api/models/load/hot")
        peer_told = await hotseat.post("/api/models/unload/far/m")

    assert (selector_told.status, peer_told.status) == (404, 404)
    assert "one of its targets: a, b" in selector_told.error["message"]
    assert "a model of the peer far" in peer_told.error["message"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ('{"name": "nope"}', 404, 'profile "nope" not found; there is: swapped'),
        ("{}", 400, "profile name is required"),
        ('{"name": 5}', 400, "profile name must be a string or null"),
        ("nothing", 400, "invalid profile request"),
        ("", 400, "invalid profile request"),
        ("[" * 100_000, 413, "larger than"),
        ("[" * 50_000, 400, "invalid profile request"),
    ],
)
async def test_a_wrong_choice_changes_nothing(
    tmp_path: Path, body: str, status: int, told: str
) -> None:
    """The profile that was active stays so."""
    async with served(HOUSE, tmp_path) as hotseat:
        await put_active(hotseat, '{"name": "swapped"}')
        got, error = await put_active(hotseat, body)
        after = await hotseat.get("/api/profiles")

    assert (got, after.body["active"]) == (status, "swapped")
    assert told in error["error"]["message"]


async def test_a_selector_takes_the_model_that_is_there(
    tmp_path: Path, gate: Callable[[], Gate]
) -> None:
    """What is loading counts, where nothing is ready; and no swap is made for it."""
    wait = gate()
    config = HOUSE.replace("reply: b", f"reply: b, load_gate: {wait.path}")
    async with served(config, tmp_path) as hotseat, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hotseat.chat("b"))
        await wait.reached()
        second = tasks.create_task(hotseat.chat("hot"))
        wait.open()
        assert (await first).text == (await second).text == "b"
        swaps = await hotseat.get("/api/swaps")

        assert [swap["model"] for swap in swaps.body["swaps"]] == ["b"]
        assert (await hotseat.get("/v1/models/hot")).body["status"] == {"value": "loaded"}
