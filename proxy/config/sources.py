"""Where the config is: a file, a directory of files, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from proxy.config.document import Document, Problem, read_document
from proxy.config.merge import merged

SUFFIXES = (".yml", ".yaml")
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Source:
    """The file comes first, then those of the folder by name, without those in folders in it."""

    file: Path | None = None
    folder: Path | None = None

    @property
    def main(self) -> Path:
        """What is named where a mistake has no file of its own."""
        return self.file or self.folder or Path()

    @property
    def home(self) -> Path:
        """What paths in the files are relative to."""
        return self.file.parent if self.file else self.main

    @property
    def paths(self) -> tuple[Path, ...]:
        """What is to be watched for changes."""
        return tuple(path for path in (self.file, self.folder) if path is not None)

    def files(self) -> tuple[Path, ...]:
        """Name all files, in order. Raises OSError."""
        listed = () if self.folder is None else self.folder.iterdir()
        entries = sorted(p for p in listed if p.suffix in SUFFIXES and p.is_file())
        return (*(() if self.file is None else (self.file,)), *entries)

    def read(self, environ: Mapping[str, str]) -> tuple[Document, tuple[Path, ...]]:
        """Read and put together; what is wrong is in the document's `problems`."""
        try:
            files = self.files()
        except OSError as error:
            told = f"cannot be read: {error.strerror}; name another directory with --config-dir"
            return _troubled(self.folder, told), ()
        if not files:
            return _troubled(self.folder, "has no file that ends in .yml or .yaml"), ()
        if self.file is not None and self.folder is not None and _is_in(self.file, files[1:]):
            told = f"lies in {self.folder} too, and would be read twice; leave out one of the two"
            return _troubled(self.file, told), files
        documents = [_read(path, environ) for path in files]
        return reduce(merged, documents), files


def _is_in(file: Path, files: tuple[Path, ...]) -> bool:
    return file.resolve() in {path.resolve() for path in files}


def _read(path: Path, environ: Mapping[str, str]) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        told = f"cannot be read: {error.strerror}{beside(path)}; name another file with --config"
        return _troubled(path, told)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        told = "is not UTF-8: save it in that encoding"
        return Document(problems=[Problem((), told, line, path)])
    return read_document(text, environ, path)


def beside(path: Path) -> str:
    """Tell which files could be meant, where this one is not."""
    try:
        listed = [] if path.exists() else sorted(path.parent.iterdir())
    except OSError:
        return ""
    names = [one.name for one in listed if one.suffix in SUFFIXES]
    return f"; beside it there would be {', '.join(names[:MOST_NAMED])}" if names else ""


def _troubled(path: Path | None, told: str) -> Document:
    return Document(problems=[Problem((), told, path=path)])
