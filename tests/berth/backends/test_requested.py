"""Which features a batch requests, and whose each vector is."""

import numpy as np
import pytest

from berth.backends.requested import check_finite, pooled, requested_by, results_of
from berth.errors import EncoderError
from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence

CLS, MEAN = ResolvedFeature(Pooling.CLS, (1,)), ResolvedFeature(Pooling.MEAN, (1,))


def sequence(length: int, *features: ResolvedFeature) -> TokenSequence:
    ids = np.zeros(length, dtype=np.int32)
    return TokenSequence(Encoding(ids, ids), features)


SEQUENCES = [sequence(2, CLS), sequence(3, MEAN, CLS, MEAN), sequence(4, MEAN)]


def test_each_feature_has_the_sequences_that_request_it_once() -> None:
    assert requested_by(SEQUENCES) == {CLS: [0, 1], MEAN: [1, 2]}


def test_each_sequence_has_its_vectors_in_its_own_order() -> None:
    vectors = {CLS: np.array([[1], [2]], dtype=np.float32), MEAN: np.array([[3], [4]], dtype=np.float32)}
    results = results_of(SEQUENCES, requested_by(SEQUENCES), vectors)
    assert [[vector.item() for vector in each] for each in results] == [[1], [3, 2, 3], [4]]


def test_vectors_that_are_too_few_are_no_result() -> None:
    with pytest.raises(ValueError, match="shorter"):
        results_of(SEQUENCES, {CLS: [0, 1]}, {CLS: np.ones((1, 4), dtype=np.float32)})


@pytest.mark.parametrize("places", [[0, 1, 2], [1], [0, 2]], ids=str)
def test_the_tokens_pooled_are_those_of_the_sequences_that_request_it(places: list[int]) -> None:
    states = {"hidden_state_1": np.arange(9, dtype=np.float32)[:, np.newaxis]}
    firsts = [[0, 2, 5][place] for place in places]
    assert np.ravel(pooled(CLS, SEQUENCES, places, states)).tolist() == firsts


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_an_error(number: float) -> None:
    check_finite([np.ones((2, 2), dtype=np.float32)])
    with pytest.raises(EncoderError, match="not finite"):
        check_finite([np.ones(2, dtype=np.float32), np.array([1, number], dtype=np.float32)])
