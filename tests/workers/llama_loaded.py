"""Models of the llama worker in the tests' own process, whose steps the tests take themselves."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_cpp import _utils, llama_cpp
from PIL import Image

from tests.workers.drawn import encoded
from workers.llama.album import Item
from workers.llama.enginelog import EngineLog
from workers.llama.eyes import Eyes, Shown
from workers.llama.loading import Loaded, Loader
from workers.llama.options import LlamaOptions
from workers.llama.vision import Vision

# the package opens these when it is imported, and leaves them to the interpreter's last complaint
atexit.register(_utils.outnull_file.close)
atexit.register(_utils.errnull_file.close)


@contextmanager
def loaded_model(
    models: Path, mmproj: Path, interrupted: Callable[[], bool] = lambda: False, **options: Any
) -> Iterator[Loaded]:
    """Load the tiny chat model with a projector."""
    files = {"model": str(models / "chat.gguf"), "mmproj": str(mmproj)}
    log = EngineLog()
    log.install()
    given = LlamaOptions.model_validate(files | {"n_ctx": 256, "n_threads": 1} | options)
    yield Loader(given, lambda _: None, log).load(interrupted)
    llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), None)


def vision_of(loaded: Loaded) -> Vision:
    assert loaded.vision is not None
    return loaded.vision


def eyes_of(loaded: Loaded, **options: int) -> Eyes:
    bounds = loaded.options.model_copy(update=options)
    return Eyes(vision_of(loaded), loaded.vocabulary, bounds, loaded.n_ctx)


def prompt_of(eyes: Eyes, text: str, pictures: Sequence[Shown]) -> list[Item]:
    """Tokenise outside of any event loop."""
    return asyncio.run(eyes.prompt(text, pictures))


def field(colour: str) -> Shown:
    """Draw a picture of one colour."""
    return Shown.of(encoded(Image.new("RGB", (64, 64), colour)), "messages")
