"""Looking: from a config and what its workers say to what is known of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from proxy.budget import LEAST_CHANGE, SEAT, Budget, Devices, NoBudget, budgets_of
from proxy.config import Config, GpuConfig, ModelConfig
from proxy.demand import SIDES, Demands, RequestClass
from proxy.memory import HOST, Gpus, HostMeter, Meter
from proxy.process import Estimate
from proxy.report.outlook import Entry, Outlook, Room
from proxy.scheduler import Demand, Device
from proxy.units import as_size

NO_LIMIT_BYTES = 1 << 62


def homes_of(config: Config, devices: Devices) -> Mapping[str, tuple[Device, ...]]:
    """Name what each model lives on. Raises NoBudget: one names a GPU that is not there."""
    homes: dict[str, tuple[Device, ...]] = {}
    for name, model in config.models.items():
        try:
            homes[name] = tuple(devices.named(gpu) for gpu in config.gpus_of(model)) or (HOST,)
        except LookupError as error:
            raise NoBudget(("models", name, "gpu"), str(error)) from error
    return homes


def look(
    config: Config,
    gpus: Gpus,
    estimates: Mapping[str, Estimate],
    demands_on: Callable[[Devices], Demands],
) -> Outlook:
    """Reckon what each model needs, of devices without a budget too.

    `demands_on` gathers what is known of the models. Raises NoBudget as `homes_of` does.
    """
    budgets, trouble = _budgets(config, gpus)
    homes = homes_of(config, Devices(gpus, budgets))
    used = dict.fromkeys([*budgets, *(on for home in homes.values() for on in home), HOST])
    counted = {on: budgets.get(on) or _whole(gpus, on) for on in used}
    demands = demands_on(Devices(gpus, counted))
    entries = [
        _entry(name, model, homes[name], demands, estimates.get(name))
        for name, model in config.models.items()
    ]
    rooms = [
        _room(config, gpus, on, budgets.get(on))
        for on in sorted(used, key=lambda on: (on == HOST, on))
        if on in budgets or any(on in one.demand for one in entries)
    ]
    is_unseen = any(one.count_bytes is None and one.device != HOST for one in rooms)
    return Outlook(rooms, entries, trouble, gpus.missing if is_unseen else "")


def _budgets(config: Config, gpus: Gpus) -> tuple[Mapping[Device, Budget], str]:
    try:
        return budgets_of(config, gpus), ""
    except NoBudget as error:
        without = config.model_copy(update={"gpu": GpuConfig(devices=config.gpu.devices)})
        return budgets_of(without, gpus), f"{'.'.join(error.where)}: {error}"


def _whole(gpus: Gpus, on: Device) -> Budget:
    """Let models have all of a device that has no budget."""
    return Budget(on, NO_LIMIT_BYTES, NO_LIMIT_BYTES, _gpu_meter(gpus, on))


def _entry(
    name: str,
    model: ModelConfig,
    lives_on: tuple[Device, ...],
    demands: Demands,
    estimate: Estimate | None,
) -> Entry:
    reckoned = demands.reckon(name)
    return Entry(
        name,
        lives_on,
        _bytes(reckoned.demand),
        reckoned.source,
        is_pinned=model.pin,
        pictures={one: _bytes(demands.reckon(name, one).demand) for one in _classes(estimate)},
        estimate=estimate,
    )


def _bytes(demand: Demand) -> Demand:
    return {on: count for on, count in demand.items() if on != SEAT}


def _classes(estimate: Estimate | None) -> Iterator[RequestClass]:
    """Name the sizes of pictures up to the largest that the worker paints."""
    if estimate is None or not estimate.requests:
        return
    most = estimate.requests[-1].up_to_pixels
    for side in SIDES:
        yield RequestClass(f"{side}x{side}")
        if side * side >= most:
            return


def _room(config: Config, gpus: Gpus, on: Device, budget: Budget | None) -> Room:
    meter = HostMeter() if on == HOST else _gpu_meter(gpus, on)
    if budget is not None:
        return Room(on, budget.most_bytes, is_budget=True, told=_told(config, budget, meter))
    if on == HOST:
        there = as_size(HostMeter().total_bytes)
        return Room(on, None, is_budget=False, told=f"no budget: not counted, of {there}")
    told = "no budget" + (": one model at a time" if config.is_one_seat else "")
    if meter is None:
        return Room(on, None, is_budget=False, told=f"{told}; its size is not known")
    return Room(on, meter.total_bytes, is_budget=False, told=f"{told}; {meter.label}")


def _told(config: Config, budget: Budget, meter: Meter | None) -> str:
    if meter is None:
        return "budget; nobody can look at the device"
    told = [f"budget, of {as_size(meter.total_bytes)} ({meter.label})"]
    reserve_bytes = config.host.reserve if budget.device == HOST else config.gpu.reserve
    if reserve_bytes:
        told.append(f"{as_size(reserve_bytes)} in reserve")
    used = meter.total_bytes - meter.free_bytes()
    if budget.limit == "auto" and used > LEAST_CHANGE * meter.total_bytes:
        told.append(f"{as_size(used)} in use now")
    return ", ".join(told)


def _gpu_meter(gpus: Gpus, on: Device) -> Meter | None:
    return next((meter for meter in gpus.meters if meter.device == on), None)
