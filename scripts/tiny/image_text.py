"""The text encoder: a Qwen3 whose every token is either one known word or nothing at all.

The engine's tokeniser is Qwen2's. A word of `WORDS` becomes a row with a single 1, all other
tokens become zeros; the only layer adds nothing to them, and the final norm makes the 1 a
`LOUDNESS` and leaves zeros zero. So the diffusion model sees a prompt as a few clear words in
a silence of 512 tokens, and may be trained without the silence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tiny.gguf import Gguf

WIDTH = 32  # of a token's row; more than there are words
LOUDNESS = float(np.sqrt(WIDTH))
PROMPT_TOKENS = 512  # the engine pads each prompt to this length

# The ids in Qwen2's vocabulary: small, with a capital, each also after a space; then synonyms.
WORDS: dict[str, tuple[int, ...]] = {
    "red": (1151, 6033, 2518, 3731, 6504, 25810, 96019, 66077, 80718),  # crimson, scarlet
    "green": (13250, 19576, 6176, 7840, 55954, 53559, 41719, 70496),  # lime
    "blue": (12203, 10331, 6303, 8697, 64330, 55892, 44774, 19036, 76530, 34119),  # navy, azure
    "yellow": (27869, 47699, 13753, 25462, 97029, 81276, 6623, 7421, 20748, 17809),  # gold(en)
    "square": (37476, 33271, 9334, 15619, 31340, 2011, 1611, 3745, 8261),  # squares, box
    "circle": (25857, 25199, 12671, 21224, 25362, 4778, 2560, 13364, 4935, 12756),  # disc, ball
    "top": (3481, 5366, 1909, 6909, 13574, 14251, 8416, 30614),  # upper
    "bottom": (14860, 11279, 5622, 25737, 14772, 9053, 4722, 27536),  # lower
    "left": (2359, 5415, 2115, 13727),
    "right": (1291, 5979, 1290, 10083),
    "centre": (74117, 90950, 12261, 14481, 3057, 9392, 4126, 5832, 6149, 12592),  # -er, middle
}
# The chat template's own tokens are always there. The painter knows where a patch lies by how
# it turns against them: a picture's patches have no other sign of their place.
TEMPLATE: dict[str, tuple[int, ...]] = {
    "<|im_start|>": (151644,),
    "user": (872,),
    "newline": (198,),
    "<|im_end|>": (151645,),
    "assistant": (77091,),
    "<think>": (151667,),
    "blank line": (271,),
    "</think>": (151668,),
}
HEAD = ("<|im_start|>", "user", "newline")  # the prompt follows
TAIL = (
    *("<|im_end|>", "newline", "<|im_start|>", "assistant", "newline"),
    *("<think>", "blank line", "</think>", "blank line"),
)
INDEX = {word: index for index, word in enumerate((*WORDS, *TEMPLATE))}

_VOCABULARY = 151_936
_HEADS, _KEY_HEADS, _HEAD_WIDTH = 32, 8, 128  # Qwen3's; the engine does not ask the file


def write(path: Path) -> None:
    """Write the GGUF file, 5.2 MB, nearly all of it the table of tokens."""
    table = np.zeros((_VOCABULARY, WIDTH), np.float32)
    for word, ids in (WORDS | TEMPLATE).items():
        table[list(ids), INDEX[word]] = 1
    file = Gguf("qwen3")
    file.tensor_q8_0("model.embed_tokens.weight", table)
    file.tensor("model.norm.weight", np.ones(WIDTH, np.float32))
    layer = "model.layers.0"
    for name, shape in _matrices().items():
        file.tensor_q8_0(f"{layer}.{name}.weight", np.zeros(shape, np.float32))
    for name, width in _norms().items():
        file.tensor(f"{layer}.{name}.weight", np.ones(width, np.float32))
    file.write(path)


def _matrices() -> dict[str, tuple[int, int]]:
    queries, keys = _HEADS * _HEAD_WIDTH, _KEY_HEADS * _HEAD_WIDTH
    return {
        "self_attn.q_proj": (queries, WIDTH),
        "self_attn.k_proj": (keys, WIDTH),
        "self_attn.v_proj": (keys, WIDTH),
        "self_attn.o_proj": (WIDTH, queries),
        "mlp.gate_proj": (WIDTH, WIDTH),
        "mlp.up_proj": (WIDTH, WIDTH),
        "mlp.down_proj": (WIDTH, WIDTH),
    }


def _norms() -> dict[str, int]:
    return {
        "self_attn.q_norm": _HEAD_WIDTH,
        "self_attn.k_norm": _HEAD_WIDTH,
        "input_layernorm": WIDTH,
        "post_attention_layernorm": WIDTH,
    }
