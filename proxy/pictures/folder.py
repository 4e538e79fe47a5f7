"""Pictures on the disk: each a file that its content names, with a label beside it."""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from proxy.pictures.incoming import Incoming, sweep
from proxy.pictures.sniff import HEAD_BYTES, sniff
from proxy.pictures.values import Claim, Kept

log = logging.getLogger(__name__)

REFERENCE: Final = re.compile(r"file-[0-9a-f]{32}")
"""What a picture is called: by half of its SHA-256, so nobody guesses one or finds a second."""
_LABELS: Final = TypeAdapter(dict[str, Claim])


def found(folder: Path) -> list[Kept]:
    """Take stock of a folder, longest unused first; make it if need be. Raises OSError.

    What a killed proxy has left unfinished is removed; what is not ours is left alone.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(folder)
    kept = [one for path in folder.iterdir() if (one := _taken_in(path))]
    ids = {one.id for one in kept}
    for label in folder.glob("file-*.json"):
        if REFERENCE.fullmatch(label.stem) and label.stem not in ids:
            _unlink(label)
    return sorted(kept, key=lambda one: one.used_at)


def label(path: Path, claims: Mapping[str, Claim]) -> None:
    """Write down who has put the picture there. Raises OSError."""
    with Incoming(path.parent) as incoming:
        incoming.write(_LABELS.dump_json(dict(claims)))
        incoming.become(_label(path))


def remove(path: Path) -> None:
    """Take a picture away; who reads it now reads it to its end."""
    _unlink(path)
    _unlink(_label(path))


def _taken_in(path: Path) -> Kept | None:
    if not REFERENCE.fullmatch(path.name):
        return None
    try:
        told = path.lstat()
        if not stat.S_ISREG(told.st_mode):
            return None
        with path.open("rb") as file:
            media_type = sniff(file.read(HEAD_BYTES))
    except OSError as error:  # another proxy has just removed it, or it is nobody's to read
        log.info("picture_unreadable", extra={"path": str(path), "error": str(error)})
        return None
    if media_type is None:  # the disk has lost it
        remove(path)
        return None
    return Kept(path.name, path, told.st_size, media_type, told.st_mtime, _claims(path))


def _claims(path: Path) -> Mapping[str, Claim]:
    """Read a label; without a sound one the picture is nobody's, and leaves when it is unused."""
    try:
        return _LABELS.validate_json(_label(path).read_bytes(), strict=True)
    except (OSError, ValidationError):
        return {}


def _label(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _unlink(path: Path) -> None:
    with suppress(OSError):  # it is gone already, or cannot go
        path.unlink()
