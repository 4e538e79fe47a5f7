"""The inference thread of an embedding or reranking model: texts in, one vector for each out."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from workers.llama.loading import POOLING, Loaded

log = logging.getLogger(__name__)

NO_MEMORY = -2  # of what llama_decode and llama_encode return
Vector = NDArray[np.float32]  # (n_embd,), not normalised; for reranking (n_cls_out,)
Failure = Literal["error", "out_of_memory"]


@dataclass(eq=False, slots=True)
class Reading:
    """One text to read. `on_end` runs on the inference thread, once."""

    tokens: Sequence[int]
    on_end: Callable[[Vector | Failure], object]
    cancelled: bool = False


class Embedder:
    """Owns the context, from its own thread; `submit` and `cancel` are for the event loop."""

    def __init__(self, loaded: Loaded) -> None:
        self._context = loaded.context
        self._decode = llama_cpp.llama_decode if loaded.has_memory else llama_cpp.llama_encode
        self._memory = llama_cpp.llama_get_memory(loaded.context)
        self._n_batch: int = llama_cpp.llama_n_batch(loaded.context)
        self._n_sequences = loaded.n_sequences
        self.ranks = llama_cpp.llama_pooling_type(loaded.context) == POOLING["rank"]
        self.pools = llama_cpp.llama_pooling_type(loaded.context) != POOLING["none"]
        self.width: int = (
            llama_cpp.llama_model_n_cls_out(loaded.model)
            if self.ranks
            else llama_cpp.llama_model_n_embd_out(loaded.model)
        )
        self._batch = llama_cpp.llama_batch_init(self._n_batch, 0, 1)
        self._inbox: queue.SimpleQueue[Reading] = queue.SimpleQueue()
        self._waiting: deque[Reading] = deque()
        self._closed = False
        self.counts = {"finished": 0, "cancelled": 0, "tokens": 0}

    def start(self) -> None:
        threading.Thread(target=self._live, daemon=True, name="inference").start()

    def submit(self, reading: Reading) -> None:
        self._inbox.put(reading)

    def cancel(self, reading: Reading) -> None:
        """Let a text go unread, unless its batch is being read already: that one is short."""
        reading.cancelled = True

    def close(self) -> None:
        self._closed = True

    def interrupted(self) -> bool:
        """Be the engine's abort callback."""
        return self._closed

    # From here on, the inference thread.

    def _live(self) -> None:
        try:
            while not self._closed:
                self._read(self._take())
        except Exception:  # without this thread the process is of no use
            log.exception("inference_failed")
            os._exit(1)

    def _take(self) -> list[Reading]:
        """Wait for texts, and take as many as one batch holds."""
        if not self._waiting:
            self._waiting.append(self._inbox.get())
        while not self._inbox.empty():
            self._waiting.append(self._inbox.get())
        taken: list[Reading] = []
        room = self._n_batch
        while self._waiting and len(taken) < self._n_sequences:
            if self._waiting[0].cancelled:
                self._waiting.popleft()
                self.counts["cancelled"] += 1
                continue
            room -= len(self._waiting[0].tokens)
            if room < 0:
                break
            taken.append(self._waiting.popleft())
        return taken

    def _read(self, readings: list[Reading]) -> None:
        if not readings:
            return
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, True)  # noqa: FBT003  # C: the data too
        self._fill_batch(readings)
        result = self._decode(self._context, self._batch)
        failure: Failure = "out_of_memory" if result == NO_MEMORY else "error"
        for number, reading in enumerate(readings):
            reading.on_end(failure if result else self._vector(number))
            self.counts["finished"] += 1
            self.counts["tokens"] += len(reading.tokens)

    def _fill_batch(self, readings: list[Reading]) -> None:
        batch, index = self._batch, 0
        for number, reading in enumerate(readings):
            for position, token in enumerate(reading.tokens):
                batch.token[index], batch.pos[index], batch.logits[index] = token, position, 1
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, number
                index += 1
        batch.n_tokens = index

    def _vector(self, sequence: int) -> Vector:
        pointer = llama_cpp.llama_get_embeddings_seq(self._context, sequence)
        return np.ctypeslib.as_array(pointer, (self.width,)).copy()
