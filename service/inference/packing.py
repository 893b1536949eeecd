"""Packing: the encodings of a batch laid end to end, so that the matrix products see tokens and no padding.

The attention alone works on a padded form, [units, heads, longest, head size]. A packed row is seen there as the rows
of its heads, [tokens x heads, head size], so that one gather leads into the padded form and one leads back, without a
transposition: on the CPU that is a third cheaper than ONNX Runtime's own MultiHeadAttention on short texts. A text
alone needs no padding, and so neither.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.inference.types import Encoding

INPUTS: dict[str, list[str]] = {
    "input_ids": ["tokens"],
    "token_type_ids": ["tokens"],
    "position_ids": ["tokens"],  # each token's place in its own text, from 0
    "attention_rows": ["units", "heads", "longest"],  # the head's row to read; past a text's end, of its first token
    "attention_bias": ["units", "1", "1", "longest"],  # float32: 0, and past a text's end `MASKED`
    "context_rows": ["tokens", "heads"],  # each head's row in the padded form
    "first_tokens": ["units"],  # the packed row of each [CLS]
    "alone": [],  # bool: there is one text, which needs no padding; in int8 it goes the way of several all the same
}
"""The graph's inputs and their axes; int32 where nothing else is said."""

SHORT_INPUTS = {name: INPUTS[name] for name in ("input_ids", "token_type_ids", "position_ids")}
"""Those of the graph for a short text alone."""

MASKED = -40.0
"""Added to the scores of keys past a text's end, all of them its first token's. None is higher than the highest within,
so their weights are e^-40 of the largest at most, far below what float32 resolves in a sum. Of the lowest number ONNX
Runtime's exponential is subnormal, and with such numbers Intel's processors take ten times as long."""

Feeds = dict[str, NDArray[np.int32] | NDArray[np.float32] | NDArray[np.bool_]]


def pack(encodings: Sequence[Encoding], heads: int) -> Feeds:
    """Lay a batch of at least one encoding end to end; the keys are those of `INPUTS`."""
    ids = {
        "input_ids": np.concatenate([encoding.ids for encoding in encodings]),
        "token_type_ids": np.concatenate([encoding.type_ids for encoding in encodings]),
    }
    return ids | _layout(tuple(len(encoding) for encoding in encodings), heads)


def pack_one(encoding: Encoding) -> Feeds:
    """Lay out a text alone; the keys are those of `SHORT_INPUTS`."""
    positions = np.arange(len(encoding), dtype=np.int32)
    return {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids, "position_ids": positions}


@lru_cache(maxsize=128)  # a text alone has its length in common with many; a fuller batch is hardly ever seen again
def _layout(of: tuple[int, ...], heads: int) -> Feeds:
    """Lay out texts of some lengths: all inputs but the ids. Whoever reads the arrays must not write them."""
    lengths = np.array(of, dtype=np.int32)
    first_tokens = np.cumsum(lengths, dtype=np.int32) - lengths
    longest = lengths.max()
    columns = np.arange(longest, dtype=np.int32)
    each_head = np.arange(heads, dtype=np.int32)
    inside = columns < lengths[:, None]
    units, places = (index.astype(np.int32) for index in np.nonzero(inside))
    padded = np.where(inside, columns, 0) + first_tokens[:, None]
    bias = np.where(inside, np.float32(0), np.float32(MASKED))
    return {
        "position_ids": places,
        "attention_rows": padded[:, None, :] * np.int32(heads) + each_head[:, None],
        "attention_bias": bias[:, None, None, :],
        "context_rows": (units[:, None] * np.int32(heads) + each_head) * longest + places[:, None],
        "first_tokens": first_tokens,
        "alone": np.array(len(of) == 1),
    }
