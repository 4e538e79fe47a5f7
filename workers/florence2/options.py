"""What swap.yaml may say of a Florence-2 model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workers import serve


class Florence2Options(serve.Options):
    """Options of `python -m workers.florence2`."""

    model: Annotated[str, Field(min_length=1)]
    """A directory, or the id of a hub repository that lies in the local hub cache."""
    download: bool = False  # fetch the repository at load when the cache lacks it
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    n_threads: Annotated[int, Field(ge=1)] | None = None  # None: torch's own choice
    num_beams: Annotated[int, Field(ge=1, le=16)] = 1
    """For captions. The published default is 3: 2.3 times the decoding, and no token streams."""
    batch: Annotated[int, Field(ge=1, le=64)] = 4
    """Questions that are answered together, about one picture or several. On a CPU four short
    answers cost 1.6 times the work of one, eight 2.3 times."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024  # also bounded by the model's positions
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000  # of a picture that a client sends
