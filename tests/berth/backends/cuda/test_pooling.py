"""Rows and weights of the CUDA graph's pooling, held against the pooling of the CPU on random states."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.backends.cuda.pooling import pool_rows, pooled_by_graph
from berth.backends.pooling import pool
from berth.backends.requested import requested_by
from berth.types import Encoding, Float32Array, Merge, Pooling, ResolvedFeature, TokenSequence

LAST = 6
IN_GRAPH = [
    *(Pooling.CLS, Pooling.LAST, Pooling.MEAN, Pooling.WEIGHTED_MEAN, Pooling.MEAN_SQRT_LEN),
    *(Pooling.MAX, Pooling.MEAN_MAX),
]
FEATURES = [
    ResolvedFeature(pooling, (LAST,), exclude_special=exclude_special)
    for pooling in IN_GRAPH
    for exclude_special in (False, True)
]


def sequence(length: int, *features: ResolvedFeature, seed: int = 0) -> TokenSequence:
    """Make a sequence of which the first, the last and some other tokens, but never all, are special."""
    ids = np.full(length, 7, dtype=np.int32)
    special = np.random.default_rng([length, seed]).random(length) < 0.3
    special[[0, -1]] = True
    special[length // 2] = False
    return TokenSequence(Encoding(ids, np.zeros_like(ids), special), features)


def states_of(sequences: list[TokenSequence]) -> Float32Array:
    tokens = sum(map(len, sequences))
    return np.random.default_rng(tokens).standard_normal((tokens, 5), dtype=np.float32)


def graph(sequences: list[TokenSequence], feature: ResolvedFeature, states: Float32Array) -> list[Float32Array]:
    """Compute what the graph computes, and read a feature of all sequences that want it off it."""
    wanted = requested_by(sequences)
    rows = pool_rows(sequences, wanted, LAST)
    of = rows.of(feature, feature.pooling, wanted[feature])
    gathered = states[rows.rows]
    pooled, largest = np.einsum("rl,rlh->rh", rows.weights, gathered), gathered.max(axis=1)
    match feature.pooling:
        case Pooling.MAX:
            return list(largest[of])
        case Pooling.MEAN_MAX:
            return list(np.concatenate([pooled[of], largest[of]], axis=1))
        case _:
            return list(pooled[of])


@pytest.mark.parametrize("feature", FEATURES, ids=str)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_pooled_as_on_the_cpu(feature: ResolvedFeature, lengths: list[int]) -> None:
    sequences = [sequence(length + 2, feature, seed=seed) for seed, length in enumerate(lengths)]
    states = states_of(sequences)
    expected = pool(feature, states, [each.encoding for each in sequences])
    np.testing.assert_allclose(graph(sequences, feature, states), expected, atol=1e-5)


@given(chosen=st.lists(st.sets(st.integers(0, len(FEATURES) - 1), min_size=1), min_size=1, max_size=8))
def test_features_of_one_batch_do_not_mix(chosen: list[set[int]]) -> None:
    sequences = [sequence(3 + seed, *(FEATURES[each] for each in of), seed=seed) for seed, of in enumerate(chosen)]
    states = states_of(sequences)
    ends = np.cumsum([len(each) for each in sequences])
    for feature, places in requested_by(sequences).items():
        vectors = graph(sequences, feature, states)
        for place, vector in zip(places, vectors, strict=True):
            own = states[ends[place] - len(sequences[place]) : ends[place]]
            [expected] = pool(feature, own, [sequences[place].encoding])
            np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_max_shares_the_rows_of_the_mean() -> None:
    sequences = [
        sequence(5, *(ResolvedFeature(pooling, (LAST,)) for pooling in (Pooling.MEAN, Pooling.MAX, Pooling.MEAN_MAX)))
    ] * 3
    assert pool_rows(sequences, requested_by(sequences), LAST).rows.shape == (3, 5)


def test_there_is_a_row_where_nothing_is_pooled() -> None:
    sequences = [sequence(4, ResolvedFeature(Pooling.NONE, (LAST,))), sequence(9, ResolvedFeature(Pooling.MEAN, (1,)))]
    rows = pool_rows(sequences, requested_by(sequences), LAST)
    assert rows.rows.tolist() == [[0]]
    assert rows.weights.tolist() == [[0]]


def test_rows_reach_no_further_than_what_they_read() -> None:
    sequences = [
        sequence(20, ResolvedFeature(Pooling.CLS, (LAST,))),
        sequence(9, ResolvedFeature(Pooling.LAST, (LAST,))),
    ]
    rows = pool_rows(sequences, requested_by(sequences), LAST)
    assert rows.rows.tolist() == [[0], [28]]
    assert rows.weights.tolist() == [[1], [1]]


def test_arrays_are_as_the_graph_wants_them() -> None:
    sequences = [sequence(4, *FEATURES), sequence(9, FEATURES[3])]
    rows = pool_rows(sequences, requested_by(sequences), LAST)
    assert (str(rows.rows.dtype), str(rows.weights.dtype)) == ("int32", "float32")
    assert rows.rows.shape == rows.weights.shape
    assert rows.rows.shape[1] == 4
    assert rows.rows.min() >= 0
    assert rows.rows.max() < 13


@pytest.mark.parametrize(
    ("feature", "in_graph"),
    [
        *((ResolvedFeature(pooling, (LAST,), normalize=True), pooling in IN_GRAPH) for pooling in Pooling),
        (ResolvedFeature(Pooling.MEAN, (5,)), False),
        (ResolvedFeature(Pooling.MEAN, (5, LAST)), False),
        (ResolvedFeature(Pooling.MEAN, (LAST,), Merge.SUM), True),
        (ResolvedFeature(Pooling.MEAN, (LAST,), Merge.WEIGHTS, (0.5,)), False),
        (ResolvedFeature(Pooling.CLS, (LAST,), further=(Pooling.MAX, Pooling.MEAN), projected=4, dimensions=2), True),
        (ResolvedFeature(Pooling.MEAN, (LAST,), include_prompt=False), False),
    ],
    ids=str,
)
def test_what_the_graph_pools(feature: ResolvedFeature, in_graph: bool) -> None:
    assert pooled_by_graph(feature, LAST) is in_graph
