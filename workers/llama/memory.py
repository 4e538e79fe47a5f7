"""The context of a model: how long it is, what its cache takes, and what the host can give.

Told from the options and the head of the file alone, for the estimate and for the load alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.files import Header, types
from workers.llama.options import DEFAULT_N_CTX, LlamaOptions

CELLS_MULTIPLE = 256  # llama.cpp makes caches of whole multiples
MOST_LAYERS = 1 << 12  # a head that tells of more is damaged
EMBEDDING_SEQUENCES = 64  # texts in one batch; an encoder has no cache that grows with them


def n_ctx(options: LlamaOptions, header: Header) -> int:
    """Choose the context: as told, else as trained but at most DEFAULT_N_CTX.

    An embedding model gets no more than it was trained for: learned positions end there.
    """
    trained = header.number("context_length") or DEFAULT_N_CTX
    wanted = min(DEFAULT_N_CTX, trained) if options.n_ctx is None else options.n_ctx or trained
    return min(wanted, trained) if options.embedding else wanted


def n_sequences(options: LlamaOptions) -> int:
    return EMBEDDING_SEQUENCES if options.embedding else options.n_parallel


def kv_cache_bytes(options: LlamaOptions, header: Header) -> int:
    """Reckon what the KV cache takes; 0 where it cannot be told."""
    return sum(layer_cache_bytes(options, header))


def layer_cache_bytes(options: LlamaOptions, header: Header) -> tuple[int, ...]:
    """Reckon what each layer keeps: the keys and values of all cells, or a recurrent state.

    All sequences share the cells, and a sliding window saves none: the whole context is kept, so
    that a prompt that begins like the last one is not computed again.
    """
    heads = header.number("attention.head_count")
    head_length = header.number("embedding_length") // heads if heads else 0
    key_length = header.number("attention.key_length") or head_length
    value_length = header.number("attention.value_length") or head_length
    cells = -(-n_ctx(options, header) // CELLS_MULTIPLE) * CELLS_MULTIPLE
    state_bytes = _state_bytes(header) * n_sequences(options)
    return tuple(
        types.bytes_of(options.type_k.upper(), cells * count * key_length)
        + types.bytes_of(options.type_v.upper(), cells * count * value_length)
        if count
        else state_bytes
        for count in kv_heads(header)
    )


def kv_heads(header: Header) -> Sequence[int]:
    """Count the KV heads of each layer; none in one that is recurrent or only predicts ahead."""
    layers = min(header.number("block_count"), MOST_LAYERS)
    told = header.of_architecture("attention.head_count_kv")
    if isinstance(told, tuple):
        counts = [int(count) for count in told[:layers]]
    else:
        either = header.number("attention.head_count_kv") or header.number("attention.head_count")
        counts = [either] * layers
    interval = header.number("full_attention_interval")
    ahead = layers - header.number("nextn_predict_layers")
    shared = layers - header.number("attention.shared_kv_layers")
    return [
        0 if layer >= min(ahead, shared) or (interval and (layer + 1) % interval) else count
        for layer, count in enumerate(counts)
    ]


def _state_bytes(header: Header) -> int:
    """Reckon the state of one sequence in one recurrent layer; 0 where there is none."""
    state, inner = header.number("ssm.state_size"), header.number("ssm.inner_size")
    width = inner + 2 * header.number("ssm.group_count") * state
    past = max(header.number("ssm.conv_kernel") - 1, 0)
    return types.bytes_of("F32", past * width + state * inner) if state else 0


def as_gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
