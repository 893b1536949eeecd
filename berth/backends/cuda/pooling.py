"""Pooling on the GPU: which packed rows each pooled vector reads, with which weights, and what is left to NumPy.

The graph computes two things of a row of `pool_rows` and `pool_weights`: the weighted sum, and the largest number by
number. With the weights of one token that is `cls` or `last`, with equal ones `mean`; `max` and `mean` of the same
tokens share a row. Several features of one sequence are several rows, so that different requests share one batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from berth.types import Float32Array, Int32Array, IntArray, Merge, Pooling, Requested, ResolvedFeature, TokenSequence

WEIGHTINGS = {
    Pooling.CLS: Pooling.CLS,
    Pooling.LAST: Pooling.LAST,
    Pooling.MEAN: Pooling.MEAN,
    Pooling.WEIGHTED_MEAN: Pooling.WEIGHTED_MEAN,
    Pooling.MEAN_SQRT_LEN: Pooling.MEAN_SQRT_LEN,
    Pooling.MAX: Pooling.MEAN,  # reads the same tokens; their weights do not matter to it
    Pooling.MEAN_MAX: Pooling.MEAN,
}
"""The poolings that the graph computes, and whose weights each takes."""

Key = tuple[Pooling, bool]
"""Rows of one kind: a weighting, and whether special tokens are left out."""


def pooled_by_graph(feature: ResolvedFeature, last: int) -> bool:
    """Say whether the graph pools a feature: some of its poolings of the `last` layer alone, as it is."""
    as_it_is = feature.layers == (last,) and feature.merge is not Merge.WEIGHTS and feature.include_prompt
    return as_it_is and all(pooling in WEIGHTINGS for pooling in feature.poolings)


@dataclass(frozen=True, slots=True, eq=False)
class PoolRows:
    """What the graph is fed, `rows` int32 and `weights` float32, both [rows, reach], and which rows are whose.

    `reach` is the most tokens that any row reads: 1 where all that is asked for is `cls` or `last`.
    """

    rows: Int32Array
    weights: Float32Array
    kinds: dict[Key, tuple[int, IntArray]]
    """Of each kind, its first row, and from there the row of each sequence of the batch, for those that have one."""

    def of(self, feature: ResolvedFeature, pooling: Pooling, places: list[int]) -> IntArray:
        """Give the numbers of the rows of a feature's sequences for one of its poolings."""
        first, row_of = self.kinds[_key(feature, pooling)]
        return np.asarray(first + row_of[places])


def pool_rows(sequences: Sequence[TokenSequence], requested: Requested, last: int) -> PoolRows:
    """Say which rows the graph is to pool for those of a batch's features that it can pool."""
    chosen: dict[Key, dict[int, None]] = {}
    for feature, places in requested.items():
        if pooled_by_graph(feature, last):
            for pooling in feature.poolings:
                chosen.setdefault(_key(feature, pooling), {}).update(dict.fromkeys(places))
    if not chosen:
        return PoolRows(np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32), {})
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.intp)
    starts = np.cumsum(lengths) - lengths
    reads, kinds, first = [], {}, 0
    for key, of_kind in chosen.items():
        which = np.fromiter(of_kind, dtype=np.intp)
        reads.append(_reads(key, [sequences[place] for place in of_kind], starts[which], lengths[which]))
        row_of = np.zeros(len(sequences), dtype=np.intp)
        row_of[which] = np.arange(len(which))
        kinds[key] = first, row_of
        first += len(which)
    columns = np.arange(max(int(counts.max()) for _, _, counts in reads))
    rows = [tokens[firsts[:, None] + np.minimum(columns, counts[:, None] - 1)] for tokens, firsts, counts in reads]
    weights = [_weights(key, columns, counts[:, None]) for key, (_, _, counts) in zip(chosen, reads, strict=True)]
    return PoolRows(np.concatenate(rows, dtype=np.int32, casting="same_kind"), np.concatenate(weights), kinds)


def _key(feature: ResolvedFeature, pooling: Pooling) -> Key:
    return WEIGHTINGS[pooling], feature.exclude_special


def _reads(
    key: Key, sequences: Sequence[TokenSequence], starts: IntArray, lengths: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Give the tokens that the rows of a kind read, as packed rows, and each sequence's first one and their count."""
    weighting, without_special = key
    firsts = np.cumsum(lengths) - lengths
    tokens = np.arange(int(lengths.sum())) + np.repeat(starts - firsts, lengths)
    if without_special:
        kept = ~np.concatenate(
            [sequence.encoding.special for sequence in sequences if sequence.encoding.special is not None]
        )
        lengths = np.add.reduceat(kept, firsts, dtype=np.intp)
        tokens, firsts = tokens[kept], np.cumsum(lengths) - lengths
    match weighting:
        case Pooling.CLS:
            return tokens, firsts, np.ones_like(lengths)
        case Pooling.LAST:
            return tokens, firsts + lengths - 1, np.ones_like(lengths)
        case _:
            return tokens, firsts, lengths


def _weights(key: Key, columns: IntArray, counts: IntArray) -> Float32Array:
    """Weigh the tokens that each row reads, [rows, reach]; past its end 0."""
    match key[0]:
        case Pooling.WEIGHTED_MEAN:  # Muennighoff 2022, SGPT: a token's weight is its position, counted from 1
            weights = (columns + 1) / (counts * (counts + 1) / 2)
        case Pooling.MEAN_SQRT_LEN:
            weights = np.broadcast_to(1 / np.sqrt(counts), (len(counts), len(columns)))
        case _:
            weights = np.broadcast_to(1 / counts, (len(counts), len(columns)))
    return np.where(columns < counts, weights, 0).astype(np.float32)
