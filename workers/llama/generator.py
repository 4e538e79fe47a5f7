"""The inference thread of a chat model: up to N sequences decoded together in one context.

Every step decodes one batch: the newest token of each sequence that is answering, and as much as
fits of the prompts of those that are not yet. What a sequence holds stays in the KV cache when
its answer ends, and the next prompt that begins the same way goes on from there. Pictures are the
same where their content is.

The sequences share the cells of the cache. When these run out, idle sequences are forgotten
first; then the youngest answer is put aside, and computed again when another one has ended.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np
from llama_cpp import llama_cpp

from workers.llama.album import Media, cells, positions
from workers.llama.loading import Loaded
from workers.llama.rows import Finish, Generation, Row, common
from workers.llama.sampling import Table

log = logging.getLogger(__name__)

DECODED, NO_ROOM, INTERRUPTED, NO_MEMORY = 0, 1, 2, -2  # what llama_decode returns


class Generator:
    """Owns the context, from its own thread; `submit` and `cancel` are for the event loop."""

    def __init__(self, loaded: Loaded) -> None:
        self._context = loaded.context
        self._vocabulary = loaded.vocabulary
        self._vision = loaded.vision
        self._log = loaded.log
        self._n_ctx = loaded.n_ctx
        self._n_batch: int = llama_cpp.llama_n_batch(loaded.context)
        self._memory = llama_cpp.llama_get_memory(loaded.context)
        self._batch = llama_cpp.llama_batch_init(self._n_batch, 0, 1)
        self._table = Table(loaded.vocabulary.size)
        self._rows = [Row(number) for number in range(loaded.n_sequences)]
        self._inbox: queue.SimpleQueue[Generation] = queue.SimpleQueue()
        self._waiting: deque[Generation] = deque()
        self._put_aside: list[Generation] = []
        self._turns = itertools.count(1)
        self._interrupted = False
        self._closed = False
        self.counts = {"started": 0, "finished": 0, "cancelled": 0, "tokens": 0, "put_aside": 0}

    def start(self) -> None:
        threading.Thread(target=self._live, daemon=True, name="inference").start()

    def submit(self, generation: Generation) -> None:
        self._inbox.put(generation)

    def cancel(self, generation: Generation) -> None:
        """Stop an answer at the next step, and cut the one under way short.

        On the CPU that ends within one node of the graph, elsewhere with its batch; a picture
        that is being encoded is encoded to its end.
        """
        generation.cancelled = True
        if any(row.generation is generation for row in self._rows):
            self._interrupted = True

    def close(self) -> None:
        self._closed = True

    def interrupted(self) -> bool:
        """Be the engine's abort callback."""
        return self._interrupted or self._closed

    @property
    def busy(self) -> int:
        return sum(row.generation is not None for row in self._rows)

    @property
    def waiting(self) -> int:
        return self._inbox.qsize() + len(self._waiting) + len(self._put_aside)

    # From here on, the inference thread.

    def _live(self) -> None:
        try:
            while not self._closed:
                self._step()
        except Exception:  # without this thread the process is of no use
            log.exception("inference_failed")
            os._exit(1)

    def _step(self) -> None:
        self._take_new()
        self._interrupted = False  # before the look at `cancelled`: a later cancel sets it again
        self._drop_cancelled()
        while self._waiting and (free := [row for row in self._rows if row.generation is None]):
            self._give(self._waiting.popleft(), free)
        pictured = [row for row in self._rows if row.awaits(Media)]
        if pictured:  # one a step, so that the others go on between; who came first is first
            self._decode_media(min(pictured, key=lambda row: row.turn))
        rows = [row for row in self._rows if row.awaits(int)]
        if rows:
            self._decode_tokens(rows)

    def _take_new(self) -> None:
        """Empty the inbox; with nothing else to do, wait for it to fill."""
        if not self._waiting and not self._put_aside and self.busy == 0:
            self._waiting.append(self._inbox.get())
        while not self._inbox.empty():
            self._waiting.append(self._inbox.get())

    def _drop_cancelled(self) -> None:
        for row in self._rows:
            if row.generation is not None and row.generation.cancelled:
                self._end(row, "stop")
        for group in (self._waiting, self._put_aside):
            for generation in [g for g in group if g.cancelled]:
                group.remove(generation)
                self._tell_end(generation, "stop")

    def _give(self, generation: Generation, free: list[Row]) -> None:
        """Seat a generation in a free row, on top of the longest prefix that any row holds."""
        items = [*generation.prompt, *generation.generated]
        prefixes = {row.id: common(row.held, items) for row in self._rows}
        best = max(self._rows, key=lambda row: (prefixes[row.id], row in free))
        shared = min(prefixes[best.id], len(items) - 1)  # the last one gives logits
        if llama_cpp.llama_memory_seq_pos_min(self._memory, best.id) > 0:
            shared = 0  # a sliding window or a recurrent state has lost the beginning
        reach = positions(items[:shared])
        # in place when most of the row is of use; else its conversation may well come again
        in_place = best in free and 2 * reach >= best.position
        row = best if in_place else min(free, key=lambda row: row.turn)
        if row is not best:
            self._forget(row)
            if shared:
                llama_cpp.llama_memory_seq_cp(self._memory, best.id, row.id, 0, reach)
        elif not self._cut(row, reach):
            shared = reach = 0
        row.items, row.done, row.position = items, shared, reach
        row.generation, row.turn = generation, next(self._turns)
        if not generation.generated:
            generation.cached_tokens = cells(items[:shared])
            generation.watch.begin(time.monotonic())
            self.counts["started"] += 1

    def _cut(self, row: Row, position: int) -> bool:
        """Take from `position` on out of the cache; where that cannot be, take all."""
        if llama_cpp.llama_memory_seq_rm(self._memory, row.id, position, -1):
            return True
        llama_cpp.llama_memory_seq_rm(self._memory, row.id, -1, -1)
        return False

    def _forget(self, row: Row) -> None:
        self._cut(row, 0)
        row.items, row.done, row.position = [], 0, 0

    def _rewind(self, row: Row) -> None:
        """Put the cache back to where the row knows it to be, after a decode that was cut."""
        if not self._cut(row, row.position):
            row.done = row.position = 0

    def _decode_media(self, row: Row) -> None:
        media = row.items[row.done]
        assert isinstance(media, Media)  # noqa: S101  # for the type checker
        assert self._vision is not None  # noqa: S101  # media come from it
        result, after = self._vision.decode(
            self._context,
            media,
            position=row.position,
            sequence=row.id,
            batch=self._n_batch,
        )
        if result == DECODED:
            row.done, row.position = row.done + 1, after
            return
        self._rewind(row)
        if result == INTERRUPTED or (result == NO_ROOM and self._make_room()):
            return
        log.error("picture_failed", extra={"result": result})
        self._end(row, self._failure(result))

    def _decode_tokens(self, rows: list[Row]) -> None:
        parts = list(self._fill_batch(rows))
        result = llama_cpp.llama_decode(self._context, self._batch)
        if result == DECODED:
            for row, count, index in parts:
                row.done, row.position = row.done + count, row.position + count
                if row.done == len(row.items):
                    self._sample(row, index)
            return
        for row, _, _ in parts:
            self._rewind(row)
        if result == INTERRUPTED or (result == NO_ROOM and self._make_room()):
            return
        log.error("decode_failed", extra={"result": result})
        finish = "length" if result == NO_ROOM else self._failure(result)
        for row, _, _ in parts:
            self._end(row, finish)

    def _failure(self, result: int) -> Finish:
        """Name what went wrong. A projector does not say by its result, only in the log."""
        no_memory = self._log.told_of_no_memory()
        return "out_of_memory" if no_memory or result == NO_MEMORY else "error"

    def _fill_batch(self, rows: list[Row]) -> Iterator[tuple[Row, int, int]]:
        """Fill the batch; yields each row in it, its count of tokens and its last one's index.

        Answering rows come first, with one token each; prompts share what is left.
        """
        batch, filled = self._batch, 0
        for row in sorted(rows, key=lambda row: len(row.items) - row.done):
            tokens = row.tokens_ahead(self._n_batch - filled)
            if not tokens:
                continue
            for offset, token in enumerate(tokens):
                index = filled + offset
                batch.token[index], batch.pos[index] = token, row.position + offset
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, row.id
                batch.logits[index] = 0
            filled += len(tokens)
            batch.logits[filled - 1] = row.done + len(tokens) == len(row.items)
            yield row, len(tokens), filled - 1
        batch.n_tokens = filled

    def _sample(self, row: Row, index: int) -> None:
        generation = row.generation
        assert generation is not None  # noqa: S101  # only rows with one are decoded
        if generation.max_tokens == 0:
            self._end(row, "length")
            return
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        logits = np.ctypeslib.as_array(pointer, (self._vocabulary.size,))
        sampled = generation.sampler.sample(logits, self._table)
        generation.watch.step(time.monotonic())
        if sampled is None or self._vocabulary.is_end(sampled.token):
            self._end(row, "stop")
            return
        row.items.append(sampled.token)
        generation.generated.append(sampled.token)
        self.counts["tokens"] += 1
        if not generation.on_token(sampled):
            self._end(row, "stop")
        elif len(generation.generated) == generation.max_tokens or row.position >= self._n_ctx:
            self._end(row, "length")

    def _make_room(self) -> bool:
        """Free cells: an idle row's, else the youngest answer's unless it is the only one."""
        idle = [row for row in self._rows if row.generation is None and row.items]
        if idle:
            self._forget(min(idle, key=lambda row: row.turn))
            return True
        rows = [row for row in self._rows if row.generation is not None]
        if len(rows) < 2:  # noqa: PLR2004
            return False
        youngest = max(rows, key=lambda row: row.turn)
        assert youngest.generation is not None  # noqa: S101  # chosen so
        self._put_aside.append(youngest.generation)
        youngest.generation = None
        self._forget(youngest)
        self.counts["put_aside"] += 1
        return True

    def _end(self, row: Row, finish: Finish) -> None:
        generation = row.generation
        assert generation is not None  # noqa: S101  # only rows with one end
        row.rest()
        self._tell_end(generation, finish)
        self._waiting.extendleft(self._put_aside)
        self._put_aside.clear()

    def _tell_end(self, generation: Generation, finish: Finish) -> None:
        self.counts["cancelled" if generation.cancelled else "finished"] += 1
        generation.on_end(finish)
