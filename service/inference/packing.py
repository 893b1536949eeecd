"""Packing: the encodings of a batch laid end to end, so that the matrix products see tokens and no padding.

The attention alone works on the padded form [units, longest]; two index arrays lead there and back.
"""

from collections.abc import Sequence

import numpy as np

from service.inference.types import Encoding, Int32Array

INPUTS = (
    "input_ids",  # [tokens]
    "token_type_ids",  # [tokens]
    "position_ids",  # [tokens]       each token's place in its own text, from 0
    "padded_index",  # [units, longest] the packed row to read at each padded place; past a text's end, its first row
    "packed_index",  # [tokens]       each token's place in the flattened padded form
    "lengths",  # [units]
    "first_tokens",  # [units]        the packed row of each [CLS]
)
"""The graph's inputs, all int32."""


def pack(encodings: Sequence[Encoding]) -> dict[str, Int32Array]:
    """Lay a batch of at least one encoding end to end; the keys are `INPUTS`."""
    lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int32)
    first_tokens = np.cumsum(lengths, dtype=np.int32) - lengths
    columns = np.arange(lengths.max(), dtype=np.int32)
    inside = columns < lengths[:, None]
    rows = np.where(inside, columns, 0)
    return {
        "input_ids": np.concatenate([encoding.ids for encoding in encodings]),
        "token_type_ids": np.concatenate([encoding.type_ids for encoding in encodings]),
        "position_ids": rows[inside],
        "padded_index": rows + first_tokens[:, None],
        "packed_index": np.flatnonzero(inside).astype(np.int32),
        "lengths": lengths,
        "first_tokens": first_tokens,
    }
