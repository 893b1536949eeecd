"""The definitions that vectors are held against, held against the pooling of the service on random states."""

import numpy as np
import pytest
import torch

from bench.gpu.accuracy import expected, lowest_cosine
from bench.gpu.texts import encoding
from berth.backends.pooling import merge_layers, pool
from berth.types import Merge, Pooling, ResolvedFeature

FEATURES = [
    *(ResolvedFeature(pooling, (2,)) for pooling in Pooling if pooling is not Pooling.POOLER),
    ResolvedFeature(Pooling.MEAN, (2,), normalize=True, exclude_special=True),
    ResolvedFeature(Pooling.MEAN, (0, 1)),
    ResolvedFeature(Pooling.MAX, (1, 2), Merge.MEAN),
]


@pytest.mark.parametrize("length", [1, 3, 20])
@pytest.mark.parametrize("feature", FEATURES, ids=str)
def test_poolings_are_the_services(feature: ResolvedFeature, length: int) -> None:
    text = encoding(length, 0, 100)
    states = np.random.default_rng(length).standard_normal((3, length, 6), dtype=np.float32)
    ours = expected(feature, [*map(torch.from_numpy, states), None], text)
    [theirs] = pool(feature, merge_layers(feature, dict(enumerate(states))), [text])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_lowest_cosine_is_that_of_the_worst_row() -> None:
    found = np.array([[1, 0], [1, 1], [0, 2]], dtype=np.float32)
    right = np.array([[5, 0], [1, 1], [1, 1]], dtype=np.float32)
    assert lowest_cosine(found, right) == pytest.approx(np.sqrt(0.5))
    assert lowest_cosine(found[0], right[0]) == pytest.approx(1)
