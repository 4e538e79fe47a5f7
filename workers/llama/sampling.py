"""Logits to a token: llama.cpp's sampler chain, with a grammar that cannot bring it down."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from workers.llama.vocabulary import Vocabulary

MIN_KEEP = 1
IMPOSSIBLE = -9999.0  # OpenAI's logprob for what has none
Pointer = Any  # of ctypes; false when NULL
Logits = NDArray[np.float32]  # (n_vocab,)


class BadGrammar(Exception):
    """The grammar cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is sampled."""

    temperature: float = 0.0  # 0: always the likeliest token
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int = 0  # 0 to 2**32 - 2
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None
    top_logprobs: int | None = None  # None: no logprobs at all


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token, with its log probability where asked for, and the likeliest ones."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Table:
    """The room that a thread needs to sample in: id, logit and probability of every token."""

    def __init__(self, vocabulary_size: int) -> None:
        kinds = [("id", np.int32), ("logit", np.float32), ("p", np.float32)]  # llama_token_data
        self._rows = np.zeros(vocabulary_size, kinds)
        self._ids = np.arange(vocabulary_size, dtype=np.int32)
        self._one = np.zeros(1, kinds)

    def all(self, logits: Logits) -> llama_cpp.llama_token_data_array:
        """Lay out every token. The samplers sort and shorten what they are given, so anew."""
        self._rows["id"], self._rows["logit"] = self._ids, logits
        return _candidates(self._rows)

    def one(self, token: int) -> llama_cpp.llama_token_data_array:
        """Lay out one token alone."""
        self._one[0] = (token, 0.0, 0.0)
        return _candidates(self._one)


class Sampler:
    """The chain of one answer; used by one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, sampling: Sampling) -> None:
        """Build the chain. Raises BadGrammar."""
        self._top_logprobs = sampling.top_logprobs
        self._grammar = _grammar(vocabulary, sampling.grammar)
        params = llama_cpp.llama_sampler_chain_default_params()
        self._chain = llama_cpp.llama_sampler_chain_init(params)
        _fill(self._chain, vocabulary.size, sampling)

    def __del__(self) -> None:
        # by reference count: the last of request and inference thread to let go frees it
        for sampler in (getattr(self, "_chain", None), getattr(self, "_grammar", None)):
            if sampler:
                llama_cpp.llama_sampler_free(sampler)

    def sample(self, logits: Logits, table: Table) -> Sampled | None:
        """Choose the next token; None when the grammar leaves none to choose.

        The grammar is asked about the chosen token alone, and only on a refusal about the whole
        vocabulary, which takes milliseconds. A token that it refuses must never be accepted into
        it: that is a C++ exception and the end of the process.
        """
        token = self._choose(table.all(logits))
        if self._grammar and not self._grammar_allows(token, table):
            candidates = table.all(logits)
            llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(candidates))
            token = self._choose(candidates)
            if not self._grammar_allows(token, table):
                return None
        if self._grammar:
            llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        if self._top_logprobs is None:
            return Sampled(token)
        return _with_logprobs(token, logits, self._top_logprobs)

    def _choose(self, candidates: llama_cpp.llama_token_data_array) -> int:
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        return int(candidates.data[max(candidates.selected, 0)].id)

    def _grammar_allows(self, token: int, table: Table) -> bool:
        candidates = table.one(token)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(candidates))
        return math.isfinite(candidates.data[0].logit)


def _candidates(rows: NDArray[np.void]) -> llama_cpp.llama_token_data_array:
    data = rows.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return llama_cpp.llama_token_data_array(data, len(rows), -1, False)  # noqa: FBT003  # C: unsorted


def _grammar(vocabulary: Vocabulary, text: str | None) -> Pointer | None:
    if text is None:
        return None
    grammar = llama_cpp.llama_sampler_init_grammar(vocabulary.pointer, text.encode(), b"root")
    if not grammar:  # in a chain, this NULL is a segmentation fault
        raise BadGrammar
    return grammar


def _fill(chain: Pointer, vocabulary_size: int, sampling: Sampling) -> None:
    """Add the samplers, in llama.cpp's order."""

    def add(sampler: Pointer) -> None:
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    biases = (llama_cpp.llama_logit_bias * len(sampling.logit_bias))(
        *(llama_cpp.llama_logit_bias(t, bias) for t, bias in sampling.logit_bias.items())
    )
    if biases:
        add(llama_cpp.llama_sampler_init_logit_bias(vocabulary_size, len(biases), biases))
    add(
        llama_cpp.llama_sampler_init_penalties(
            vocabulary_size,
            sampling.repeat_last_n,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
    )
    if sampling.temperature <= 0:
        add(llama_cpp.llama_sampler_init_greedy())
        return
    add(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    add(llama_cpp.llama_sampler_init_top_p(sampling.top_p, MIN_KEEP))
    add(llama_cpp.llama_sampler_init_min_p(sampling.min_p, MIN_KEEP))
    add(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    add(llama_cpp.llama_sampler_init_dist(sampling.seed))


def _with_logprobs(token: int, logits: Logits, top: int) -> Sampled:
    """Add log probabilities as the model had them, before penalties, grammar and temperature."""
    shifted = logits - logits.max()
    logprobs = np.nan_to_num(
        shifted - np.log(np.exp(shifted).sum()), nan=IMPOSSIBLE, neginf=IMPOSSIBLE
    )
    best = np.argpartition(-logprobs, top)[:top] if top else np.empty(0, np.int64)
    ranked = sorted(((int(t), float(logprobs[t])) for t in best), key=lambda pair: -pair[1])
    return Sampled(token, float(logprobs[token]), tuple(ranked))
