"""Which names there are: told from the config and the pool's state, never behind a swap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from proxy.config import Config, Modalities, ModelConfig, PeerModel, Selector
from proxy.routes.destination import Local, Place, exact, no_such_model, place_of
from proxy.routes.keys import POOL, config_of
from proxy.routes.loras import loras_of
from proxy.routes.profiles import ACTIVE

UNDECLARED = ("chat", "completions")
"""What a `cmd` is listed as when it does not say; words must be there, on every model."""
TOLD_OTHERWISE = ("architecture", "capabilities", "supported_parameters", "context_length")
"""Keys of metadata that `capabilities` is the better word on."""
TOOLS = ("tools", "tool_choice")

Entry = dict[str, object]


async def list_models(request: web.Request) -> web.Response:
    """Answer GET /v1/models, sorted by id."""
    data = sorted(_catalogue(request).listed(), key=lambda entry: str(entry["id"]))
    return web.json_response({"object": "list", "data": data})


async def tell_model(request: web.Request) -> web.Response:
    """Answer GET /v1/models/{id}, by any name that leads to a model; with LoRAs, if it has any."""
    name, config = request.match_info["id"], config_of(request)
    told = _catalogue(request).told(name)
    place = exact(config, name, request.app[ACTIVE].pins(config))
    if isinstance(place, Local) and (
        loras := await loras_of(config, request.app[POOL], place.model_id)
    ):
        told["loras"] = [{"name": lora.name, "fits": lora.fits} for lora in loras]
    return web.json_response(told)


def _catalogue(request: web.Request) -> _Catalogue:
    config = config_of(request)
    states = {str(w.model): w.state for w in request.app[POOL].standing.running()}
    return _Catalogue(config, states, request.app[ACTIVE].pins(config))


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """What there is to be told of every name."""

    config: Config
    states: Mapping[str, str]  # of the models that have a worker
    pins: Mapping[str, str]  # of the active profile

    def listed(self) -> Iterator[Entry]:
        config = self.config
        for name, entry in self._named():
            if self.pins.get(name, name):  # else the profile takes it away
                yield entry
        for name, target in self.pins.items():
            taken = (config.models, config.selectors)
            if target and not any(name in names for names in taken):
                yield self._pin(name, target)

    def told(self, name: str) -> Entry:
        """Describe whoever has the name. Raises ModelNotFound."""
        target = self.pins.get(name, name)
        if target in self.config.selectors:
            return self._selector(target, self.config.selectors[target])
        place = exact(self.config, name, self.pins)
        if place is None:
            raise no_such_model(self.config, name)
        return self._place(place)

    def _named(self) -> Iterator[tuple[str, Entry]]:
        config = self.config
        for model_id, model in config.models.items():
            if model.unlisted:
                continue
            yield model_id, self._model(model_id)
            for alias in model.other_names if config.include_aliases_in_list else ():
                if alias not in self.pins:  # that one is told as the profile's
                    yield alias, self._alias(alias, model_id)
        for name, selector in config.selectors.items():
            if not selector.unlisted:
                yield name, self._selector(name, selector)
        for peer in dict.fromkeys(config.peer_models.values()):
            yield peer.name, self._peer(peer)

    def _place(self, place: Place) -> Entry:
        return self._model(place.model_id) if isinstance(place, Local) else self._peer(place)

    def _model(self, model_id: str) -> Entry:
        model = self.config.models[model_id]
        meta: Entry = {"type": "model", "aliases": list(dict.fromkeys(model.other_names))}
        return self._of_model(model_id, model_id, meta)

    def _alias(self, alias: str, model_id: str) -> Entry:
        return self._of_model(alias, model_id, {"type": "alias", "modelID": model_id})

    def _of_model(self, name: str, model_id: str, meta: Entry) -> Entry:
        model = self.config.models[model_id]
        said = {
            key: value
            for key, value in model.metadata.items()
            if model.capabilities is None or key not in TOLD_OTHERWISE
        }
        is_loaded = self.states.get(model_id) == "ready"
        entry = self._entry(name, model, said | meta, is_loaded=is_loaded)
        modes = model.modalities
        if modes is not None and modes.tools:
            entry["supported_parameters"] = list(TOOLS)
        if modes is not None and modes.context:
            entry["context_length"] = modes.context
            entry["meta"] = {"llamaswap": said | meta, "n_ctx": modes.context}
        words = _words(model)
        if describer := self.config.eyes_of(model):
            entry["vision_fallback"] = describer
        return entry | {"capabilities": list(words), "architecture": _architecture(words, modes)}

    def _selector(self, name: str, selector: Selector) -> Entry:
        meta: Entry = {
            **selector.metadata,
            "type": "selector",
            "strategy": selector.strategy,
            "targets": list(selector.targets),
            "spillover": selector.settings.spillover,
        }
        meant = selector.targets[:1] if selector.strategy == "pin" else selector.targets
        ids = [self.config.resolve(target) for target in meant]
        is_loaded = any(
            self.states.get(model_id or "") in ("ready", "starting") for model_id in ids
        )
        first = place_of(self.config, selector.targets[0])
        able = self._place(first) if first is not None else {}
        return self._entry(name, selector, meta, is_loaded=is_loaded) | _abilities(able)

    def _peer(self, peer: PeerModel) -> Entry:
        meta: Entry = {"type": "peer", "peerID": peer.peer_id}
        entry = self._entry(peer.name, None, meta, is_loaded=True)  # it is not ours to load
        return entry | {
            "name": f"{peer.peer_id}: {peer.model}",
            "capabilities": list(UNDECLARED),
            "architecture": _architecture(UNDECLARED, None),
        }

    def _pin(self, name: str, target: str) -> Entry:
        meta = {"llamaswap": {"type": "profile", "target": target}}
        return self.told(name) | {"id": name, "meta": meta}

    def _entry(
        self, name: str, said: ModelConfig | Selector | None, meta: Entry, *, is_loaded: bool
    ) -> Entry:
        entry: Entry = {
            "id": name,
            "object": "model",
            "created": self.config.created,
            "owned_by": "hotseat",
        }
        if said is not None and said.name:
            entry["name"] = said.name
        if said is not None and said.description.strip():
            entry["description"] = said.description.strip()
        status = {"value": "loaded" if is_loaded else "unloaded"}
        return entry | {"status": status, "meta": {"llamaswap": meta}}


def _abilities(entry: Entry) -> Entry:
    """Give what a name can do because the one that it leads to can."""
    return {key: entry[key] for key in TOLD_OTHERWISE if key in entry}


def _words(model: ModelConfig) -> Sequence[str]:
    """Name what it can do, as a list: some clients read a map's keys."""
    return _words_of(model.modalities) if model.modalities else model.words or UNDECLARED


def _words_of(modes: Modalities) -> Sequence[str]:
    if modes.reranker:
        return ("rerank",)
    words: list[str] = []
    if "text" in modes.outputs or not modes.outputs:
        words += UNDECLARED
        words += ["vision"] if "image" in modes.inputs else []
        words += ["audio_transcriptions"] if "audio" in modes.inputs else []
    if "image" in modes.outputs:
        words += ["image_generation", "text_to_image"]
        words += ["image_edit", "image_to_image"] if "image" in modes.inputs else []
    if "audio" in modes.outputs:
        words += ["audio_speech"]
    return words


def _architecture(words: Sequence[str], modes: Modalities | None) -> Entry:
    sees = bool({"vision", "describe", "image_edit"} & {*words})
    inputs = modes.inputs if modes else ()
    outputs = modes.outputs if modes else ()
    inputs = inputs or (("text", "image") if sees else ("text",))
    outputs = outputs or (("image",) if "image_generation" in words else ("text",))
    return {
        "input_modalities": list(inputs),
        "output_modalities": list(outputs),
        "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
    }
