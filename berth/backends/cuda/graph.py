"""The CUDA graph as its writer and its caller must both know it: inputs, pooled outputs, how texts lie in it.

The tokens of a batch are laid end to end and never padded: the attention is ONNX Runtime's PackedMultiHeadAttention,
which is told by `token_offset` and `cumulative_sequence_length` where each text begins. Beside the outputs named here
the graph has those of the CPU graph: `hidden_state_i` [tokens, hidden] and, where there is a pooler, `pooler_output`.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from berth.backends.near import chunks_of

INPUTS: dict[str, list[str]] = {
    "input_ids": ["tokens"],
    "token_type_ids": ["tokens"],
    "position_ids": ["tokens"],  # each token's place in its own text, from 0
    "token_offset": ["sequences", "longest"],  # where the tokens are in the padded form, then where its padding is
    "cumulative_sequence_length": [
        "sequences + 1"
    ],  # where each text begins among the tokens, and where the last one ends
    "first_tokens": ["sequences"],  # the packed row of each [CLS]; an input only where there is a pooler
    "pool_rows": ["rows", "reach"],  # the tokens that a pooled vector reads; past their end one of them again
    "pool_weights": ["rows", "reach"],  # float32: the weight of each; 0 past the end
}
"""The graph's inputs and their axes; int32 but for the weights. There is at least one row, whatever is fetched."""

NEAR_INPUTS: dict[str, list[str]] = {
    "near_query_rows": ["chunks", "queries"],  # the packed row to read; past a text's end its first token's
    "near_key_rows": ["chunks", "keys"],
    "near_bias": ["chunks", "1", "queries", "keys"],  # float32: 0, and `UNREACHED` where the key is out of reach
    "near_context_rows": ["tokens"],  # each token's row in the chunks
}
"""Those of a network with layers whose tokens attend to near ones alone: a chunk is some queries and their keys."""

UNREACHED = -1e4
"""Added to the scores of keys that are out of reach: of such a number the exponential is 0 in float16 and float32."""

POOLED = "pooled"
"""float32 [rows, hidden]: the sum of weights x tokens of the last layer: cls, last, mean, weighted mean."""

POOLED_MAX = "pooled_max"
"""float32 [rows, hidden]: the largest of `pool_rows` in the last layer, number by number."""


@lru_cache(maxsize=128)  # a text alone has its length in common with many; a fuller batch is hardly ever seen again
def layout(lengths: tuple[int, ...]) -> dict[str, NDArray[np.int32]]:
    """Lay out texts of some lengths: position_ids, token_offset, cumulative_sequence_length and first_tokens.

    Padding is on the right, as ONNX Runtime documents it for PackedMultiHeadAttention (docs/ContribOperators.md) and
    `getTokenOffset` counts it (contrib_ops/cuda/bert/bert_padding.cu). Whoever reads the arrays must not write them.
    """
    of = np.array(lengths, dtype=np.int32)
    ends = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(of, dtype=np.int32)])
    longest = int(of.max())
    places = np.arange(of.size * longest, dtype=np.int32).reshape(of.size, longest)
    inside = np.arange(longest, dtype=np.int32) < of[:, None]
    tokens = places[inside]
    return {
        "position_ids": tokens % np.int32(longest),
        "token_offset": np.concatenate([tokens, places[~inside]]).reshape(of.size, longest),
        "cumulative_sequence_length": ends,
        "first_tokens": ends[:-1],
    }


def near_layout(lengths: tuple[int, ...], window: int) -> dict[str, NDArray[np.int32] | NDArray[np.float32]]:
    """Lay out the chunks of near attention: `NEAR_INPUTS`. They are not kept: of a large batch they are tens of MB."""
    of = np.array(lengths, dtype=np.int32)
    chunks = chunks_of(of, np.cumsum(of, dtype=np.int32) - of, window)
    bias = np.where(chunks.inside, np.float32(0), np.float32(UNREACHED))
    return {
        "near_query_rows": chunks.queries,
        "near_key_rows": chunks.keys,
        "near_bias": bias[:, None],
        "near_context_rows": chunks.chunk_of * np.int32(chunks.queries.shape[1]) + chunks.place_of,
    }
