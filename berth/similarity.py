"""How near vectors are to each other; larger is nearer, so distances are negated, as in sentence-transformers."""

import numpy as np
from numpy.typing import NDArray

from berth.types import Float32Array, IntArray, Metric

Float64Array = NDArray[np.float64]

CHUNK_NUMBERS = 1 << 22
"""Numbers that the Manhattan distance holds at once, of [rows, targets, width]."""


def scores(metric: Metric, source: Float32Array, target: Float32Array) -> Float64Array:
    """Score every source [n, width] against every target [m, width]: [n, m], computed in float64."""
    a, b = _prepared(metric, source), _prepared(metric, target)
    match metric:
        case Metric.COSINE | Metric.DOT:
            return np.asarray(a @ b.T)
        case Metric.EUCLIDEAN:
            squares = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)
            return -np.asarray(np.sqrt(np.maximum(squares - 2 * (a @ b.T), 0)))
        case Metric.MANHATTAN:
            rows = max(1, CHUNK_NUMBERS // b.size)
            chunks = np.split(a, range(rows, len(a), rows))
            return np.concatenate([-np.abs(chunk[:, None] - b).sum(axis=2) for chunk in chunks])


def pairwise_scores(metric: Metric, source: Float32Array, target: Float32Array) -> Float64Array:
    """Score each source with the target beside it: [n, width] and [n, width] give [n]."""
    a, b = _prepared(metric, source), _prepared(metric, target)
    match metric:
        case Metric.COSINE | Metric.DOT:
            return np.asarray(np.einsum("ij,ij->i", a, b))
        case Metric.EUCLIDEAN:
            return -np.asarray(np.linalg.norm(a - b, axis=1))
        case Metric.MANHATTAN:
            return -np.asarray(np.abs(a - b).sum(axis=1))


def best(matrix: Float64Array, count: int) -> IntArray:
    """Give the columns of each row's best scores, best first, equals in their order: [n, min(count, m)]."""
    return np.argsort(-matrix, axis=1, kind="stable")[:, :count]


def max_sim(matrix: Float64Array) -> float:
    """Sum over the rows of a token-by-token matrix each one's best score: ColBERT's late interaction."""
    return float(matrix.max(axis=1).sum())


def _prepared(metric: Metric, vectors: Float32Array) -> Float64Array:
    wide = vectors.astype(np.float64)
    if metric is Metric.COSINE:
        wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide
