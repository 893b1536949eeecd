"""Pooling on the GPU: which packed rows each pooled vector reads, with which weights, and what is left to NumPy.

The graph computes two things of a row of `pool_rows` and `pool_weights`: the weighted sum, and the largest number by
number. With the weights of one token that is `cls` or `last`, with equal ones `mean`; `max` and `mean` of the same
tokens share a row. Several features of one unit are several rows, so that different requests share one batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.inference.types import Feature, Float32Array, Int32Array, Merge, Pooling, Unit

IntArray = NDArray[np.intp]

WEIGHTINGS = {
    Pooling.CLS: Pooling.CLS,
    Pooling.LAST: Pooling.LAST,
    Pooling.MEAN: Pooling.MEAN,
    Pooling.WEIGHTED_MEAN: Pooling.WEIGHTED_MEAN,
    Pooling.MAX: Pooling.MEAN,  # reads the same tokens; their weights do not matter to it
    Pooling.MEAN_MAX: Pooling.MEAN,
}
"""The poolings that the graph computes, and whose weights each takes."""

Wanted = Mapping[Feature, list[int]]
"""The features that a batch wants, each with the places in the batch of the units that want it."""
Key = tuple[Pooling, bool]
"""Rows of one kind: a weighting, and whether special tokens are left out."""


def pooled_by_graph(feature: Feature, last: int) -> bool:
    """Say whether the graph pools a feature: one of its poolings of the `last` layer alone, as it is."""
    return feature.pooling in WEIGHTINGS and feature.layers == (last,) and feature.merge is not Merge.WEIGHTS


def wanted_by(units: Sequence[Unit]) -> dict[Feature, list[int]]:
    """Gather the features of a batch; one that a unit asks for twice is there once."""
    wanted: dict[Feature, list[int]] = {}
    for place, unit in enumerate(units):
        for feature in dict.fromkeys(unit.features):
            wanted.setdefault(feature, []).append(place)
    return wanted


@dataclass(frozen=True, slots=True, eq=False)
class PoolRows:
    """What the graph is fed, `rows` int32 and `weights` float32, both [rows, longest], and which rows are whose."""

    rows: Int32Array
    weights: Float32Array
    kinds: dict[Key, tuple[int, IntArray]]
    """Of each kind, its first row, and from there the row of each unit of the batch, for those that have one."""

    def of(self, feature: Feature, places: list[int]) -> IntArray:
        """Give the numbers of the rows of a feature's units."""
        first, row_of = self.kinds[_key(feature)]
        return np.asarray(first + row_of[places])


def pool_rows(units: Sequence[Unit], wanted: Wanted, last: int) -> PoolRows:
    """Say which rows the graph is to pool for those of a batch's features that it can pool."""
    kinds: dict[Key, dict[int, None]] = {}
    for feature, places in wanted.items():
        if pooled_by_graph(feature, last):
            kinds.setdefault(_key(feature), {}).update(dict.fromkeys(places))
    lengths = np.array([len(unit) for unit in units], dtype=np.intp)
    longest = int(lengths.max())
    if not kinds:
        return PoolRows(np.zeros((1, longest), np.int32), np.zeros((1, longest), np.float32), {})
    starts = np.cumsum(lengths) - lengths
    parts, numbers, first = [], {}, 0
    for key, chosen in kinds.items():
        which = np.fromiter(chosen, dtype=np.intp)
        parts.append(_rows(key, [units[place] for place in chosen], starts[which], longest))
        row_of = np.zeros(len(units), dtype=np.intp)
        row_of[which] = np.arange(len(which))
        numbers[key] = first, row_of
        first += len(which)
    return PoolRows(
        np.concatenate([rows for rows, _ in parts]), np.concatenate([weights for _, weights in parts]), numbers
    )


def _key(feature: Feature) -> Key:
    return WEIGHTINGS[feature.pooling], feature.exclude_special


def _rows(key: Key, units: Sequence[Unit], starts: IntArray, longest: int) -> tuple[Int32Array, Float32Array]:
    """Lay out the rows of some units whose packed tokens begin at `starts`: [units, longest] each."""
    weighting, without_special = key
    lengths = np.array([len(unit) for unit in units], dtype=np.intp)
    firsts = starts
    tokens: IntArray | None = None
    if without_special:
        tokens, lengths = _kept(units, starts, lengths)
        firsts = np.cumsum(lengths) - lengths
    columns = np.arange(longest)
    rows = firsts[:, None] + np.minimum(columns, lengths[:, None] - 1)  # past the end, the last of them again
    if tokens is not None:
        rows = tokens[rows]
    return rows.astype(np.int32), _weights(weighting, columns, lengths[:, None])


def _kept(units: Iterable[Unit], starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Give the packed rows of the tokens that are not special, end to end, and how many each unit has."""
    special = np.concatenate([unit.encoding.special for unit in units if unit.encoding.special is not None])
    firsts = np.cumsum(lengths) - lengths
    packed = np.arange(len(special)) + np.repeat(starts - firsts, lengths)
    return packed[~special], np.add.reduceat(~special, firsts, dtype=np.intp)


def _weights(weighting: Pooling, columns: IntArray, lengths: IntArray) -> Float32Array:
    match weighting:
        case Pooling.CLS:
            weights = np.broadcast_to(columns == 0, (len(lengths), len(columns))).astype(np.float32)
        case Pooling.LAST:
            weights = (columns == lengths - 1).astype(np.float32)
        case Pooling.WEIGHTED_MEAN:  # Muennighoff 2022, SGPT: a token's weight is its position, counted from 1
            total = lengths * (lengths + 1) / 2
            weights = np.where(columns < lengths, (columns + 1) / total, 0).astype(np.float32)
        case _:
            weights = np.where(columns < lengths, 1 / lengths, 0).astype(np.float32)
    return weights
