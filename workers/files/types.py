"""The number types of weights: ggml's and safetensors', which agree where both have one."""

from __future__ import annotations

BLOCKS = {  # name → (values in a block, bytes of a block); ggml.c, type_traits
    "F64": (1, 8),
    "I64": (1, 8),
    "U64": (1, 8),
    "F32": (1, 4),
    "I32": (1, 4),
    "U32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "I16": (1, 2),
    "U16": (1, 2),
    "F8_E4M3": (1, 1),
    "F8_E5M2": (1, 1),
    "I8": (1, 1),
    "U8": (1, 1),
    "BOOL": (1, 1),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 36),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18),
    "IQ3_S": (256, 110),
    "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
}


def bytes_of(name: str, values: int) -> int:
    """Give the bytes of that many values, as whole blocks. Raises KeyError for another name."""
    per_block, block_bytes = BLOCKS[name]
    return values // per_block * block_bytes
