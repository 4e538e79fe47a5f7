"""What each model demands of which device: the memory policy, in one place.

Declared, else learned, else estimated from the heads of the files; what was measured counts where
it is more than what was declared. A GPU without a budget is one seat, which all but the pinned
demand; unless there are rules of company, which then stand for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NewType

from proxy.budget import ONE_SEAT, SEAT, Devices
from proxy.config import Config, ModelConfig
from proxy.footprints import Digest, Footprints, options_digest
from proxy.memory import HOST
from proxy.process import Estimate
from proxy.scheduler import Demand, Device, Model, ModelName, larger, total

RequestClass = NewType("RequestClass", str)
PLAIN = RequestClass("")
LARGER = RequestClass("larger")
AT_READY = RequestClass("ready")  # before it has served anybody
SIDES = (256, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Pictures of the same class: up to so many pixels squared."""
DRIFT = 1.1


class Source(Enum):
    """Where a demand is known from."""

    DECLARED = "declared"
    LEARNED = "learned"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"  # it gets all there is, and is measured then


@dataclass(frozen=True, slots=True)
class Reckoned:
    """A demand, and how it is known."""

    demand: Demand
    source: Source
    feared: Demand  # it may need so much, as less was not enough: a wish

    def within(self, room: Demand) -> Demand:
        """Give the demand, and of what is feared as much as there is room for."""
        wished = {on: min(count, room.get(on, 0)) for on, count in self.feared.items()}
        return larger(self.demand, wished)


class Demands:
    """What is known of every model's memory and times; grows while they run."""

    def __init__(
        self,
        config: Config,
        devices: Devices,
        estimates: Mapping[str, Estimate],
        footprints: Footprints,
    ) -> None:
        self._config = config
        self._devices = devices
        self._budgets = devices.budgets
        self._estimates = estimates
        self._footprints = footprints
        self._digests = {name: _digest(model) for name, model in config.models.items()}
        self.drifted: set[str] = set()  # who holds more than it declares, and was told so

    def renewed(
        self, config: Config, devices: Devices, estimates: Mapping[str, Estimate]
    ) -> Demands:
        """Make those of another config; what was learned is theirs too."""
        return Demands(config, devices, estimates, self._footprints)

    @property
    def budget(self) -> Demand:
        """What there is when nobody else uses the devices."""
        seat = ONE_SEAT if self._has_seat else {}
        return {**seat, **{device: one.most_bytes for device, one in self._budgets.items()}}

    @property
    def _has_seat(self) -> bool:
        return self._config.is_one_seat

    def models(self) -> list[Model]:
        """Tell the scheduler what it needs to know of each model."""
        return [self.model(name) for name in self._config.models]

    def model(self, name: str) -> Model:
        config, model = self._config, self._config.models[name]
        reckoned, digest = self.reckon(name), self._digests[name]
        return Model(
            ModelName(name),
            demand=reckoned.demand,
            feared=reckoned.feared,
            loads_alone=reckoned.source is Source.UNKNOWN,
            concurrency=config.concurrency(model),
            ttl_s=config.ttl_s(model),
            patience_s=config.patience_s(model),
            queue_limit=model.queue_limit,
            pinned=model.pin,
            load_s=self._footprints.load_s(ModelName(name), digest),
            service_s=self._footprints.service_s(ModelName(name), digest),
        )

    def class_of(self, name: str, pixels: int | None) -> RequestClass:
        """Sort a request by what makes it need more or less memory than others of its model."""
        words = self._config.models[name].words or ()
        if pixels is None or "image_generation" not in words:
            return PLAIN
        side = next((side for side in SIDES if pixels <= side * side), None)
        return RequestClass(f"{side}x{side}") if side else LARGER

    def rank(self, name: str, request_class: RequestClass) -> int:
        """Order the classes of a model by what they need: the pixels of a picture."""
        pixels, estimate = _pixels(request_class), self._estimates.get(name)
        plain = estimate.plain_pixels if estimate is not None else None
        return pixels if pixels is not None else plain or 0

    def reckon(self, name: str, request_class: RequestClass = PLAIN) -> Reckoned:
        """Tell what the model's worker must hold to serve a request of the class."""
        model = self._config.models[name]
        known, source = self._known(name, request_class)
        # what it held before it served anybody is a lower bound, however it is known
        at_least = self._measured(name, AT_READY) or {}
        measured = self._measured(name, request_class) or {}
        demand = self._with_seat(model, larger(larger(known, measured), at_least))
        feared = self._footprints.feared(ModelName(name), self._digests[name], request_class)
        return Reckoned(demand, source, self._counted(model, feared))

    def _known(self, name: str, request_class: RequestClass) -> tuple[Demand, Source]:
        model = self._config.models[name]
        if (declared := self._declared(model)) is not None:
            return declared, Source.DECLARED
        if (measured := self._measured(name, request_class)) is not None:
            return measured, Source.LEARNED
        if (plain := self._measured(name, PLAIN)) is not None:
            more = self._request_bytes(name, request_class) - self._request_bytes(name, PLAIN)
            return total([plain, self._placed(model, max(0, more), 0)]), Source.LEARNED
        if (estimated := self._estimated(name, request_class)) is not None:
            return estimated, Source.ESTIMATED
        return dict.fromkeys(self._own_devices(model), 1), Source.UNKNOWN

    # Learning

    def learn(self, name: str, request_class: RequestClass, peak: Demand) -> bool:
        """Take in what a worker held at its peak; True when that is news."""
        digest = self._digests[name]
        return self._footprints.learn(
            ModelName(name), digest, request_class, peak, now=time.time()
        )

    def drifts(self, name: str) -> tuple[Demand, Demand] | None:
        """Give what is declared and what was measured, once, when that is over 10 % more."""
        declared = self._declared(self._config.models[name])
        measured = self._measured(name, PLAIN) or {}
        if declared is None or name in self.drifted:
            return None
        if all(measured.get(on, 0) <= DRIFT * count for on, count in declared.items()):
            return None
        self.drifted.add(name)
        return declared, measured

    def ran_out(self, name: str, request_class: RequestClass, had: Demand) -> None:
        """Fear that such requests need more than they were thought to, of what the worker had."""
        reckoned = self.reckon(name, request_class)
        thought = larger(reckoned.demand, reckoned.feared)
        short = {on: min(n, thought.get(on, 0)) for on, n in had.items() if on in self._budgets}
        self._footprints.note_out_of_memory(
            ModelName(name), self._digests[name], request_class, short, now=time.time()
        )

    def note_times(
        self, name: str, *, load_s: float | None = None, service_s: float | None = None
    ) -> None:
        self._footprints.note_times(
            ModelName(name),
            self._digests[name],
            now=time.time(),
            load_s=load_s,
            service_s=service_s,
        )

    def save(self) -> None:
        """Keep what was learned for the next start. Blocks."""
        self._footprints.save()

    # Where it is known from

    def _declared(self, model: ModelConfig) -> Demand | None:
        declared = self._config.declared(model)
        if declared is None:
            return None
        return self._placed(model, declared.gpu or 0, declared.host or 0)

    def _measured(self, name: str, request_class: RequestClass) -> Demand | None:
        """Give what was measured, on the devices that count; None: never on the model's own."""
        model = self._config.models[name]
        peak = self._footprints.peak(ModelName(name), self._digests[name], request_class) or {}
        if peak.keys().isdisjoint(self._own_devices(model)):
            return None
        return self._counted(model, peak)

    def _counted(self, model: ModelConfig, demand: Demand) -> Demand:
        """Keep the devices that have budgets, and are the model's own or the host."""
        places = {*self._own_devices(model), HOST} & self._budgets.keys()
        return {on: count for on, count in demand.items() if on in places}

    def _estimated(self, name: str, request_class: RequestClass) -> Demand | None:
        estimate = self._estimates.get(name)
        if estimate is None:
            return None
        pixels = _pixels(request_class)
        whole = self._held_with(name, estimate, estimate.request_bytes(pixels))
        if all(count <= self._budgets[on].most_bytes for on, count in whole.items()):
            return whole
        return self._held_with(name, estimate, estimate.least_request_bytes(pixels))

    def _held_with(self, name: str, estimate: Estimate, request_bytes: int) -> Demand:
        model = self._config.models[name]
        device = estimate.held_bytes("device") + request_bytes
        context = estimate.held_bytes("context") if self._config.gpus_of(model) else 0
        return self._placed(model, device + context, estimate.held_bytes("host"))

    def _request_bytes(self, name: str, request_class: RequestClass) -> int:
        estimate = self._estimates.get(name)
        return estimate.request_bytes(_pixels(request_class)) if estimate is not None else 0

    def _placed(self, model: ModelConfig, device_bytes: int, host_bytes: int) -> Demand:
        """Put bytes on the model's devices, evenly, and on the host, where these have budgets."""
        devices = self._own_devices(model)
        if not self._config.gpus_of(model):
            device_bytes, host_bytes = 0, device_bytes + host_bytes
        shares = {on: -(-device_bytes // len(devices)) for on in devices if on != HOST}
        return {
            on: n for on, n in {**shares, HOST: host_bytes}.items() if on in self._budgets and n
        }

    def most_bytes(self, name: str) -> int | None:
        """Tell what the model could have where it lives, all else gone; None: nobody counts."""
        own = self._own_devices(self._config.models[name])
        return sum(self._budgets[on].most_bytes for on in own) if own else None

    def _own_devices(self, model: ModelConfig) -> tuple[Device, ...]:
        """Name what the model lives on: its GPUs, or the host; where there is a budget."""
        gpus = tuple(self._devices.named(gpu) for gpu in self._config.gpus_of(model))
        return tuple(on for on in gpus or (HOST,) if on in self._budgets)

    def touched(self, name: str, there_is: Demand) -> Demand:
        """Give, of all there is, that of devices that a worker of the model may hold some of."""
        model = self._config.models[name]
        is_on_gpu = bool(self._config.gpus_of(model))
        left_out = {SEAT} if model.pin else set()
        return {
            on: n for on, n in there_is.items() if on == HOST or (is_on_gpu and on not in left_out)
        }

    def _with_seat(self, model: ModelConfig, demand: Demand) -> Demand:
        takes_seat = self._has_seat and self._config.gpus_of(model) and not model.pin
        return {**demand, **(ONE_SEAT if takes_seat else {})}


def _digest(model: ModelConfig) -> Digest:
    return options_digest(model.kind, model.options, model.env, model.cmd)


def _pixels(request_class: RequestClass) -> int | None:
    """Tell the most pixels of the class; None: a plain request does not say."""
    side = request_class.partition("x")[0]
    if side.isdigit():
        return int(side) ** 2
    return SIDES[-1] ** 2 + 1 if request_class == LARGER else None
