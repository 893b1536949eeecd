"""The four metrics against SciPy's distances."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from berth.similarity import best, pairwise_scores, scores
from berth.types import Float32Array, Metric

SCIPY = {Metric.COSINE: "cosine", Metric.EUCLIDEAN: "euclidean", Metric.MANHATTAN: "cityblock"}


def random_vectors(count: int, seed: int) -> Float32Array:
    return np.random.default_rng(seed).normal(size=(count, 20)).astype(np.float32)


def expected_scores(
    metric: Metric, a: Float32Array, b: Float32Array
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Score with SciPy; larger is nearer."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    if metric is Metric.DOT:
        return wide_a @ wide_b.T
    distances = cdist(wide_a, wide_b, SCIPY[metric])
    return np.asarray(1 - distances if metric is Metric.COSINE else -distances)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("sources", [1, 5, 130])
def test_scores_are_scipys(metric: Metric, sources: int) -> None:
    a, b = random_vectors(sources, 1), random_vectors(7, 2)
    np.testing.assert_allclose(scores(metric, a, b), expected_scores(metric, a, b), atol=1e-12)


@pytest.mark.parametrize("metric", Metric)
def test_pairwise_scores_are_the_diagonal(metric: Metric) -> None:
    a, b = random_vectors(9, 1), random_vectors(9, 2)
    np.testing.assert_allclose(pairwise_scores(metric, a, b), expected_scores(metric, a, b).diagonal(), atol=1e-12)


@pytest.mark.parametrize("metric", [Metric.EUCLIDEAN, Metric.MANHATTAN])
def test_distance_of_a_vector_to_itself_is_zero(metric: Metric) -> None:
    a = random_vectors(4, 1)
    np.testing.assert_allclose(scores(metric, a, a).diagonal(), 0, atol=1e-6)
    assert pairwise_scores(metric, a, a).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("metric", Metric)
def test_zero_vectors_give_numbers(metric: Metric) -> None:
    zeros = np.zeros((2, 20), dtype=np.float32)
    assert scores(metric, zeros, zeros).tolist() == [[0, 0], [0, 0]]


def test_best_are_in_falling_order_and_equals_in_their_own() -> None:
    matrix = np.array([[0.1, 0.9, 0.5, 0.9], [3.0, 2.0, 1.0, 0.0]])
    assert best(matrix, 3).tolist() == [[1, 3, 2], [0, 1, 2]]
    assert best(matrix, 99).tolist() == [[1, 3, 2, 0], [0, 1, 2, 3]]
