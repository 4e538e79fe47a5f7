"""Names beside the models': profiles, selectors, and what other servers have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, SecretStr
from yarl import URL

from proxy.config.document import Problem, Where
from proxy.config.filters import Filters
from proxy.config.model import Timeouts
from proxy.config.section import Section, empty_is_unsaid
from proxy.scheduler import ModelName

if TYPE_CHECKING:
    from proxy.config.schema import Config

NO_NAME = "is nobody's name, so nothing is taken away"
HEAD_S = 60.0
"""How long a peer may take to begin its answer, unless its `timeouts` say otherwise."""


def _profile(value: object) -> object:
    if isinstance(value, list):
        raise ValueError(  # noqa: TRY004  # pydantic's
            "lists of models are no profiles any more: say which name leads where, under `pins`"
        )
    return value


def _pins(pins: dict[str, str | None]) -> dict[str, str]:
    if not pins:
        raise ValueError("names nothing: say at least one name, and where it leads")
    if not all(name.strip() for name in pins):
        raise ValueError("a name is empty")
    return {name: target or "" for name, target in pins.items()}


def _some(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("is empty: name at least one model")
    return names


def _http(address: str) -> str:
    try:
        url = URL(address)
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("must be a URL such as http://10.0.0.2:8080 or https://example.com/api")
    if url.user or url.password:
        raise ValueError("holds a name or a password: leave it out, and say the key as apiKey")
    if url.raw_query_string or url.fragment:
        raise ValueError("has a query or a fragment, behind which no path can stand")
    return address.rstrip("/")


def _patient(timeouts: object) -> object:
    if isinstance(timeouts, dict) and timeouts.get("responseHeader") is None:
        return {**timeouts, "responseHeader": HEAD_S}
    return timeouts


class Profile(Section):
    """An entry of `profiles`: while it is active, some names lead elsewhere."""

    description: str = ""
    pins: Annotated[dict[str, str | None], AfterValidator(_pins)]
    """By the name that is asked for: where it leads; nothing: there is no such model then."""


class SelectorSettings(Section):
    """The section `settings` of a selector."""

    spillover: PositiveInt = 1


class Selector(Section):
    """An entry of `selectors`: a name for whichever of its targets is best just now."""

    strategy: Literal["pin", "warm", "spillover"]
    targets: Annotated[tuple[str, ...], AfterValidator(_some)]
    settings: SelectorSettings = SelectorSettings()
    name: str = ""
    description: str = ""
    unlisted: bool = False
    metadata: dict[str, Any] = Field(default_factory=dict)


class Peer(Section):
    """An entry of `peers`: another server of OpenAI's kind, and its models."""

    proxy: Annotated[str, AfterValidator(_http)]
    models: Annotated[tuple[str, ...], AfterValidator(_some)]
    api_key: Annotated[SecretStr | None, BeforeValidator(empty_is_unsaid)] = None
    filters: Filters = Filters()
    timeouts: Annotated[Timeouts, BeforeValidator(_patient)] = Timeouts.model_validate(
        {"responseHeader": HEAD_S}
    )


Profiles: TypeAlias = dict[str, Annotated[Profile, BeforeValidator(_profile)]]


@dataclass(frozen=True, slots=True)
class PeerModel:
    """A model of another server."""

    peer_id: str
    model: str

    @property
    def name(self) -> str:
        """Under which it always can be asked for."""
        return f"{self.peer_id}/{self.model}"


def peer_models(peers: Mapping[str, Peer]) -> Mapping[str, PeerModel]:
    """Tell all names of the peers' models: `peer/model`, and the bare one if only one has it."""
    every = [
        PeerModel(peer_id, name)
        for peer_id, p in peers.items()
        for name in dict.fromkeys(p.models)
    ]
    owners: dict[str, list[PeerModel]] = {}
    for model in every:
        owners.setdefault(model.model, []).append(model)
    bare = {name: having[0] for name, having in owners.items() if len(having) == 1}
    return {**bare, **{model.name: model for model in every}}


def virtual_clashes(config: Config) -> Iterator[Problem]:
    """Find what no type can see: names that are taken, and targets that are none."""
    yield from _peer_clashes(config)
    for name, selector in config.selectors.items():
        for problem in _selector_clashes(config, name, selector):
            yield Problem(("selectors", name, *problem.where), problem.message)
    for name, profile in config.profiles.items():
        for problem in _profile_clashes(config, name, profile):
            yield Problem(("profiles", name, *problem.where), problem.message)


def _peer_clashes(config: Config) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for peer_id, peer in config.peers.items():
        for index, model in enumerate(peer.models):
            where: Where = ("peers", peer_id, "models", str(index))
            name = PeerModel(peer_id, model).name
            owner = owners.setdefault(name, peer_id)
            if owner != peer_id:
                told = (
                    f"{name!r} may be of the peer {owner!r} or of {peer_id!r}: rename one of them"
                )
                yield Problem(where, told)
            elif name in config.names:
                told = f"{name!r} is a name of the model {config.names[name]!r} already"
                yield Problem(where, told)


def _selector_clashes(config: Config, name: str, selector: Selector) -> Iterator[Problem]:
    if not name.strip():
        yield Problem((), "its name is empty")
    elif name in config.names:
        yield Problem((), f"is a name of the model {config.names[name]!r} already")
    elif owner := next((i for i, peer in config.peers.items() if name in peer.models), None):
        yield Problem((), f"is a model of the peer {owner!r} already")
    elif name in config.peer_models:
        yield Problem((), f"is a model of the peer {config.peer_models[name].peer_id!r} already")
    for index in range(len(selector.targets)):
        if told := _wrong_target(config, selector, index):
            yield Problem(("targets", str(index)), told)
    if selector.strategy == "spillover" and (lonely := _lonely(config, selector)):
        told = f"{lonely!r} cannot be seated beside all of the others, so nothing spills over"
        how = "have them in one group with `swap: false` or one set of a matrix, or set gpu.memory"
        yield Problem(("targets",), f"{told}; {how}")


def _lonely(config: Config, selector: Selector) -> str | None:
    """Name a target of ours that never sits beside all the others of ours, if there is one."""
    ids = {model_id for name in selector.targets if (model_id := config.names.get(name))}
    ways = config.company.beside
    for model_id in sorted(ids):
        others = ids - {model_id}
        if ways and not any(others <= way for way in ways.get(ModelName(model_id), ())):
            return model_id
        if config.is_one_seat and any(_share_a_seat(config, model_id, one) for one in others):
            return model_id
    return None


def _share_a_seat(config: Config, one: str, other: str) -> bool:
    models = (config.models[one], config.models[other])
    if any(model.pin for model in models):
        return False
    gpus, others = (config.gpus_of(model) for model in models)
    return not {*gpus}.isdisjoint(others)


def _wrong_target(config: Config, selector: Selector, index: int) -> str | None:
    target, model_id = selector.targets[index], config.names.get(selector.targets[index])
    if target in config.selectors:
        return f"{target!r} is a selector: one cannot lead to another"
    if model_id is None and target not in config.peer_models:
        return config.absent(target, [*config.names, *config.peer_models])
    if selector.strategy == "warm" and model_id is None:
        told = "of those nobody knows whether they are loaded; use pin or spillover"
        return f"{target!r} is a peer's: {told}"
    earlier = [config.names.get(one, one) for one in selector.targets[:index]]
    if selector.strategy == "spillover" and (model_id or target) in earlier:
        return f"{target!r} is the same model as an earlier target"
    return None


def _profile_clashes(config: Config, name: str, profile: Profile) -> Iterator[Problem]:
    if not name.strip():
        yield Problem((), "its name is empty")
    for asked, target in profile.pins.items():
        where = ("pins", asked)
        fixed = config.peer_models.get(asked)
        if fixed is not None and fixed.name == asked:
            yield Problem(where, f"is a model of the peer {fixed.peer_id!r}, which stays as it is")
        known = [*config.names, *config.selectors, *config.peer_models]
        if target and target not in known:
            yield Problem(where, config.absent(target, known))


def notes_on_pins(config: Config) -> Iterator[Problem]:
    """Tell of the names that are had only while a profile is active: they may be slips."""
    known = [*config.names, *config.selectors, *config.peer_models]
    for profile_id, profile in config.profiles.items():
        for name, target in profile.pins.items():
            if name not in known:
                told = "is a name only while this profile is active" if target else NO_NAME
                near = " or ".join(config.near(name))
                hint = f"; did you mean {near}?" if near else ""
                yield Problem(("profiles", profile_id, "pins", name), f"{told}{hint}")
