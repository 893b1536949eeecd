"""Packing: the encodings of a batch laid end to end, so that the matrix products see tokens and no padding.

Only the attention works on a padded form, [sequences, heads, longest, head size]. The packed rows are seen as the rows
of their heads, [tokens x heads, head size], so that one gather gives the padded form and one gives the packed form
again, without a transposition: on the CPU that is a third cheaper than ONNX Runtime's own MultiHeadAttention on short
texts. A text alone needs no padding, and neither gather.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from berth.backends.near import chunks_of
from berth.backends.positions import places_without_padding
from berth.types import Encoding, Int32Array, Layout

INPUTS: dict[str, list[str]] = {
    "input_ids": ["tokens"],
    "token_type_ids": ["tokens"],
    "position_ids": ["tokens"],  # each token's place in its own text, from 0; -1 where padding has no place
    "attention_rows": ["sequences", "heads", "longest"],  # the head's row to read; past a text's end its first token's
    "attention_bias": ["sequences", "1", "1", "longest"],  # float32: 0, and past a text's end `MASKED`
    "context_rows": ["tokens", "heads"],  # each head's row in the padded form
    "first_tokens": ["sequences"],  # the packed row of each [CLS]
    "alone": [],  # bool: there is one text, which needs no padding; in int8 it goes the way of several all the same
}
"""The graph's inputs and their axes; int32 where nothing else is said. A graph has those that its network needs."""

NEAR_INPUTS: dict[str, list[str]] = {
    "near_query_rows": ["chunks", "heads", "queries"],  # the head's row to read; past a text's end its first token's
    "near_key_rows": ["chunks", "heads", "keys"],
    "near_inside": ["chunks", "1", "queries", "keys"],  # bool: whether the key is within the query's reach
    "near_context_rows": ["tokens", "heads"],  # each head's row in the chunks
}
"""Those of a network with layers whose tokens attend to near ones alone: a chunk is some queries and their keys."""


MASKED = -40.0
"""Added to the scores of keys past a text's end, all of them its first token's. None is higher than the highest within,
so their weights are e^-40 of the largest at most, far below what float32 resolves in a sum. Of the lowest number ONNX
Runtime's exponential is subnormal, and with such numbers Intel's processors take ten times as long."""

MOST_KEPT = 1024
"""Tokens of a batch whose layout is kept for the next of the same lengths; of 8,192 tokens it may be 4 MB."""

Feeds = dict[str, NDArray[np.int32] | NDArray[np.float32] | NDArray[np.bool_]]


def pack(encodings: Sequence[Encoding], layout: Layout) -> Feeds:
    """Lay a batch of at least one encoding end to end; the keys are those of `INPUTS`, and `NEAR_INPUTS` with a window.

    A graph may have fewer inputs.
    """
    ids = np.concatenate([encoding.ids for encoding in encodings])
    lay_out = _laid_out if len(ids) <= MOST_KEPT else _laid_out.__wrapped__
    feeds = lay_out(tuple(len(encoding) for encoding in encodings), layout.heads, layout.window) | {
        "input_ids": ids,
        "token_type_ids": np.concatenate([encoding.type_ids for encoding in encodings]),
    }
    places = places_without_padding(encodings, ids, layout.padding_id)
    return feeds if places is None else feeds | {"position_ids": places}


@lru_cache(maxsize=128)  # a text alone has its length in common with many; a fuller batch is hardly ever seen again
def _laid_out(of: tuple[int, ...], heads: int, window: int | None) -> Feeds:
    """Lay out texts of some lengths: all inputs but the ids. Whoever reads the arrays must not write them."""
    lengths = np.array(of, dtype=np.int32)
    first_tokens = np.cumsum(lengths, dtype=np.int32) - lengths
    longest = lengths.max()
    columns = np.arange(longest, dtype=np.int32)
    each_head = np.arange(heads, dtype=np.int32)
    inside = columns < lengths[:, None]
    sequences, places = (index.astype(np.int32) for index in np.nonzero(inside))
    padded = np.where(inside, columns, 0) + first_tokens[:, None]
    bias = np.where(inside, np.float32(0), np.float32(MASKED))
    feeds: Feeds = {
        "position_ids": places,
        "attention_rows": padded[:, None, :] * np.int32(heads) + each_head[:, None],
        "attention_bias": bias[:, None, None, :],
        "context_rows": (sequences[:, None] * np.int32(heads) + each_head) * longest + places[:, None],
        "first_tokens": first_tokens,
        "alone": np.array(len(of) == 1),
    }
    return feeds if window is None else feeds | _near(lengths, first_tokens, each_head, window)


def _near(lengths: Int32Array, first_tokens: Int32Array, each_head: Int32Array, window: int) -> Feeds:
    """Lay out the chunks of near attention, each head's rows: `NEAR_INPUTS`."""
    chunks, heads = chunks_of(lengths, first_tokens, window), np.int32(len(each_head))
    width = np.int32(chunks.queries.shape[1])
    return {
        "near_query_rows": chunks.queries[:, None, :] * heads + each_head[:, None],
        "near_key_rows": chunks.keys[:, None, :] * heads + each_head[:, None],
        "near_inside": chunks.inside[:, None],
        "near_context_rows": (chunks.chunk_of[:, None] * heads + each_head) * width + chunks.place_of[:, None],
    }
