"""The file: checked by pydantic when it is read, and replaced as a whole when it is written."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.footprints.values import Digest, Footprint, Key, Known, Times, most
from proxy.scheduler.types import Demand, Device, ModelName

log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A part of the file: what is not known, or of another type, is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class PeakEntry(Strict):
    """One footprint."""

    model: str
    digest: str
    request_class: str
    peak: dict[str, Count]
    runs: Count
    used_at: Seconds
    feared: dict[str, Count] = {}
    calm_runs: Count = 0


class TimesEntry(Strict):
    """The times of one model."""

    model: str
    digest: str
    load_s: Seconds | None
    service_s: Seconds | None
    used_at: Seconds


class StateFile(Strict):
    """All of it."""

    version: Literal[1]
    peaks: list[PeakEntry]
    times: list[TimesEntry]


def default_path(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Find the file's place by the XDG rules; None: there is no home to put it in."""
    folder = Path(environ.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():  # to be ignored then
        home = Path(environ.get("HOME", ""))
        if not home.is_absolute():
            return None
        folder = home / ".local/state"
    return folder / "hotseat/footprints.json"


def load(path: Path) -> Known:
    """Read the file; one that makes no sense is set aside, with a warning."""
    try:
        return _known(StateFile.model_validate_json(path.read_bytes()))
    except FileNotFoundError:
        return Known()
    except (OSError, ValidationError) as error:
        aside = path.with_name(f"{path.name}.corrupt")
        told = {"path": str(path), "set_aside_as": str(aside), "error": _in_one_line(error)}
        log.warning("footprints_unreadable", extra=told)
        with suppress(OSError):
            path.replace(aside)
        return Known()


def write(path: Path, known: Known) -> None:
    """Replace the file, all or nothing.

    Raises OSError, and ValueError for what `load` would not take.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # of mode 0600, and in the same folder, so that it can take the place of the old one at once
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(_render(known))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:  # whatever ends it, no half file stays
        with suppress(OSError):
            Path(name).unlink()
        raise


def _known(state: StateFile) -> Known:
    peaks: dict[Key, Footprint] = {}
    for one in state.peaks:
        key = Key(ModelName(one.model), Digest(one.digest), one.request_class)
        peak, feared = _demand(one.peak), _demand(one.feared)
        peaks[key] = Footprint(peak, peak, one.runs, one.used_at, feared, one.calm_runs)
    times = {
        (ModelName(one.model), Digest(one.digest)): Times(one.load_s, one.service_s, one.used_at)
        for one in state.times
    }
    return Known(peaks, times)


def _demand(told: Mapping[str, int]) -> Demand:
    return most({}, {Device(name): count for name, count in told.items()})


def _render(known: Known) -> str:
    peaks = [
        PeakEntry(
            **key._asdict(),
            peak={str(device): count for device, count in one.peak.items()},
            runs=one.runs,
            used_at=one.used_at,
            feared={str(device): count for device, count in one.feared.items()},
            calm_runs=one.calm_runs,
        )
        for key, one in known.peaks.items()
    ]
    times = [
        TimesEntry(model=model, digest=digest, **asdict(one))
        for (model, digest), one in known.times.items()
    ]
    return StateFile(version=1, peaks=peaks, times=times).model_dump_json(indent=1) + "\n"


def _in_one_line(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
