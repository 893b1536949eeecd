"""Poolings and merges by hand, and what holds of all of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.backends.pooling import mean_of_words, merge_layers, normalize, pool, sum_of
from berth.types import Merge, Pooling, ResolvedFeature
from tests.berth.backends.states import LENGTHS, POOLINGS, WIDTH, encodings, random_rows


@pytest.mark.parametrize(
    ("pooling", "vectors"),
    [
        (Pooling.CLS, [[1, 8], [9, 0]]),
        (Pooling.LAST, [[4, 2], [9, 0]]),
        (Pooling.MEAN, [[3, 4], [9, 0]]),
        (Pooling.MAX, [[4, 8], [9, 0]]),
        (Pooling.MEAN_MAX, [[3, 4, 4, 8], [9, 0, 9, 0]]),
        (Pooling.WEIGHTED_MEAN, [[(1 + 2 * 4 + 3 * 4) / 6, (8 + 2 * 2 + 3 * 2) / 6], [9, 0]]),
        (Pooling.MEAN_SQRT_LEN, [[9 / 3**0.5, 12 / 3**0.5], [9, 0]]),
        (Pooling.NONE, [[[1, 8], [4, 2], [4, 2]], [[9, 0]]]),
    ],
    ids=str,
)
def test_poolings_by_hand(pooling: Pooling, vectors: list[Any]) -> None:
    rows = np.array([[1, 8], [4, 2], [4, 2], [9, 0]], dtype=np.float32)
    pooled = pool(ResolvedFeature(pooling, (3,)), rows, encodings([3, 1]))
    for vector, expected in zip(pooled, vectors, strict=True):
        np.testing.assert_allclose(vector, expected, rtol=1e-6)
        assert vector.dtype == np.float32


@pytest.mark.parametrize(
    ("merge", "weights", "merged"),
    [
        (Merge.CONCAT, (), [[1, 2, 10, 20]]),
        (Merge.MEAN, (), [[5.5, 11]]),
        (Merge.SUM, (), [[11, 22]]),
        (Merge.WEIGHTS, (0.5, -2.0), [[-19.5, -39]]),
    ],
    ids=str,
)
def test_merges_by_hand(merge: Merge, weights: tuple[float, ...], merged: list[list[float]]) -> None:
    layers = {layer: np.array([[number, 2 * number]], dtype=np.float32) for layer, number in ((4, 1), (0, 10), (2, 7))}
    assert merge_layers(ResolvedFeature(Pooling.MEAN, (4, 0), merge, weights), layers).tolist() == merged


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_text_has_the_same_vector_alone_and_in_company(pooling: Pooling, normalized: bool) -> None:
    """To the last bit: what is asked for alone must match what was indexed in bulk."""
    lengths = [1, 2, 9, 40, 256]
    rows = np.random.default_rng(1).normal(size=(sum(lengths), 384)).astype(np.float32)
    feature = ResolvedFeature(pooling, (3,), normalize=normalized)
    together = pool(feature, rows, encodings(lengths))
    ends = np.cumsum(lengths)
    for vector, start, length in zip(together, ends - lengths, lengths, strict=True):
        (alone,) = pool(feature, rows[start : start + length], encodings([length]))
        np.testing.assert_array_equal(vector, alone)


@pytest.mark.parametrize(
    ("pooling", "without"),
    [
        (Pooling.CLS, [5, 9]),
        (Pooling.LAST, [7, 9]),
        (Pooling.MEAN, [6, 9]),
        (Pooling.MEAN_SQRT_LEN, [12 / 2**0.5, 9]),
        (Pooling.MAX, [7, 9]),
        (Pooling.WEIGHTED_MEAN, [(3 * 5 + 4 * 7) / 7, 9]),  # the positions stay those of the whole text
    ],
    ids=str,
)
@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
def test_a_prompt_can_be_left_out(pooling: Pooling, without: list[float], normalized: bool) -> None:
    rows = np.array([[1], [3], [5], [7], [9]], dtype=np.float32)
    texts = encodings([4, 1])
    texts[0] = replace(texts[0], prompt=2)
    feature = ResolvedFeature(pooling, (3,), normalize=normalized, include_prompt=False)
    expected = np.ones(2) if normalized else without
    np.testing.assert_allclose(np.ravel(pool(feature, rows, texts)), expected, rtol=1e-6)
    with_prompt = pool(replace(feature, include_prompt=True), rows, texts)
    whole = pool(feature, rows, encodings([4, 1]))
    np.testing.assert_array_equal(whole, with_prompt, "without a prompt nothing is left out")


def test_special_tokens_and_a_prompt_can_be_left_out_together() -> None:
    rows = np.arange(7, dtype=np.float32)[:, None]
    [text] = encodings([7])
    feature = ResolvedFeature(Pooling.MEAN, (3,), exclude_special=True, include_prompt=False)
    assert np.ravel(pool(feature, rows, [replace(text, prompt=3)])).tolist() == [4]  # of 3, 4 and 5


def test_a_text_of_special_tokens_alone_has_no_token_vectors_left() -> None:
    vectors = pool(ResolvedFeature(Pooling.NONE, (3,), exclude_special=True), random_rows(7), encodings([2, 5]))
    assert [vector.shape for vector in vectors] == [(0, WIDTH), (3, WIDTH)]


def test_words_by_hand() -> None:
    rows = np.array([[9], [1], [3], [5], [9]], dtype=np.float32)
    assert mean_of_words(rows, np.array([-1, 0, 0, 1, -1], dtype=np.int32)).tolist() == [[2], [5]]
    assert mean_of_words(rows, np.full(5, -1, dtype=np.int32)).shape == (0, 1)


@pytest.mark.parametrize("merge", [Merge.CONCAT, Merge.MEAN, Merge.SUM])
def test_merge_of_one_layer_is_that_layer(merge: Merge) -> None:
    rows = random_rows(4)
    np.testing.assert_array_equal(merge_layers(ResolvedFeature(Pooling.CLS, (2,), merge), {2: rows}), rows)


def test_weight_of_one_layer_counts() -> None:
    rows = random_rows(4)
    feature = ResolvedFeature(Pooling.CLS, (2,), Merge.WEIGHTS, (2.0,))
    np.testing.assert_array_equal(merge_layers(feature, {2: rows}), 2 * rows)


def test_pooling_leaves_the_hidden_states_as_they_are() -> None:
    rows = random_rows(sum(LENGTHS))
    before = rows.copy()
    for pooling in POOLINGS:
        pool(ResolvedFeature(pooling, (3,), normalize=True), rows, encodings(LENGTHS))
    sum_of([rows, rows])
    np.testing.assert_array_equal(rows, before)


def test_normalizing_keeps_zero_and_scales_the_rest_to_one() -> None:
    vectors = np.array([[0, 0], [3, 4], [1e-3, 0]], dtype=np.float32)
    np.testing.assert_allclose(normalize(vectors), np.array([[0, 0], [0.6, 0.8], [1, 0]]), rtol=1e-6)


@settings(max_examples=300, deadline=None)
@given(words=st.lists(st.integers(1, 4), min_size=1, max_size=12), seed=st.integers(0, 2**16))
def test_words_of_any_lengths_are_means(words: list[int], seed: int) -> None:
    numbers = np.repeat(np.arange(len(words)), words).astype(np.int32)
    framed = np.concatenate([[-1], numbers, [-1]]).astype(np.int32)
    rows = random_rows(len(framed), seed)
    vectors = mean_of_words(rows, framed)
    assert vectors.shape == (len(words), WIDTH)
    for number, vector in enumerate(vectors):
        assert np.allclose(vector, rows[framed == number].mean(0), rtol=1e-4, atol=1e-5)
