"""Every pooling and every merge against the same in torch, text by text."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inference.pooling import mean_of_words, merge_layers, normalize, pool, sum_of
from service.inference.types import Encoding, Feature, Float32Array, Merge, Pooling

WIDTH = 12
LENGTHS = [2, 7, 3, 31, 2, 3]

Reference = Callable[[torch.Tensor], torch.Tensor]

REFERENCES: dict[Pooling, Reference] = {
    Pooling.CLS: lambda rows: rows[0],
    Pooling.LAST: lambda rows: rows[-1],
    Pooling.MEAN: lambda rows: rows.mean(0),
    Pooling.MAX: lambda rows: rows.max(0).values,
    Pooling.MEAN_MAX: lambda rows: torch.cat([rows.mean(0), rows.max(0).values]),
    Pooling.WEIGHTED_MEAN: lambda rows: (
        (rows * torch.arange(1, len(rows) + 1)[:, None]).sum(0) / torch.arange(1, len(rows) + 1).sum()
    ),
    Pooling.NONE: lambda rows: rows,
}


def random_rows(tokens: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(size=(tokens, WIDTH)).astype(np.float32)


def encodings(lengths: list[int]) -> list[Encoding]:
    """Make texts whose first and last tokens are special and whose words are one to three tokens long."""
    made = []
    for length in lengths:
        ids = np.zeros(length, dtype=np.int32)
        special = np.zeros(length, dtype=bool)
        special[[0, -1]] = True
        words = np.full(length, -1, dtype=np.int32)
        words[1:-1] = np.sort(np.arange(length - 2) // 2)
        made.append(Encoding(ids, ids, special, words))
    return made


def split(rows: Float32Array, lengths: list[int]) -> list[torch.Tensor]:
    return list(torch.split(torch.from_numpy(rows), lengths))


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
@pytest.mark.parametrize("pooling", REFERENCES)
def test_pooling_is_torchs(pooling: Pooling, normalized: bool) -> None:
    rows = random_rows(sum(LENGTHS))
    vectors = pool(Feature(pooling, (3,), normalize=normalized), rows, encodings(LENGTHS))
    assert len(vectors) == len(LENGTHS)
    for vector, text in zip(vectors, split(rows, LENGTHS), strict=True):
        expected = REFERENCES[pooling](text)
        if normalized:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)
        assert vector.dtype == np.float32


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
@pytest.mark.parametrize("pooling", REFERENCES)
def test_text_has_the_same_vector_alone_and_in_company(pooling: Pooling, normalized: bool) -> None:
    """To the last bit: what is asked for alone must match what was indexed in bulk."""
    lengths = [1, 2, 9, 40, 256]
    rows = np.random.default_rng(1).normal(size=(sum(lengths), 384)).astype(np.float32)
    feature = Feature(pooling, (3,), normalize=normalized)
    together = pool(feature, rows, encodings(lengths))
    ends = np.cumsum(lengths)
    for vector, start, length in zip(together, ends - lengths, lengths, strict=True):
        (alone,) = pool(feature, rows[start : start + length], encodings([length]))
        np.testing.assert_array_equal(vector, alone)


@pytest.mark.parametrize("pooling", REFERENCES)
def test_special_tokens_can_be_left_out(pooling: Pooling) -> None:
    lengths = [length for length in LENGTHS if length > 2]
    rows = random_rows(sum(lengths))
    vectors = pool(Feature(pooling, (3,), exclude_special=True), rows, encodings(lengths))
    for vector, text in zip(vectors, split(rows, lengths), strict=True):
        np.testing.assert_allclose(vector, REFERENCES[pooling](text[1:-1]).numpy(), atol=1e-6)


def test_a_text_of_special_tokens_alone_has_no_token_vectors_left() -> None:
    vectors = pool(Feature(Pooling.NONE, (3,), exclude_special=True), random_rows(7), encodings([2, 5]))
    assert [vector.shape for vector in vectors] == [(0, WIDTH), (3, WIDTH)]


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
def test_words_are_means_of_their_tokens(normalized: bool) -> None:
    rows = random_rows(sum(LENGTHS))
    texts = encodings(LENGTHS)
    vectors = pool(Feature(Pooling.WORDS, (3,), normalize=normalized), rows, texts)
    for vector, text, encoding in zip(vectors, split(rows, LENGTHS), texts, strict=True):
        assert encoding.words is not None
        words = torch.from_numpy(encoding.words)
        means = [text[words == word].mean(0) for word in range(int(words.max()) + 1)]
        expected = torch.stack(means) if means else torch.empty(0, WIDTH)
        if normalized:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        assert vector.shape == expected.shape
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)


def test_words_by_hand() -> None:
    rows = np.array([[9], [1], [3], [5], [9]], dtype=np.float32)
    assert mean_of_words(rows, np.array([-1, 0, 0, 1, -1], dtype=np.int32)).tolist() == [[2], [5]]
    assert mean_of_words(rows, np.full(5, -1, dtype=np.int32)).shape == (0, 1)


@pytest.mark.parametrize(
    ("merge", "weights", "reference"),
    [
        (Merge.CONCAT, (), lambda states: torch.cat(states, dim=1)),
        (Merge.MEAN, (), lambda states: torch.stack(states).mean(0)),
        (Merge.SUM, (), lambda states: torch.stack(states).sum(0)),
        (Merge.WEIGHTS, (0.5, -2.0, 3.0), lambda states: 0.5 * states[0] - 2 * states[1] + 3 * states[2]),
    ],
    ids=str,
)
def test_merge_is_torchs(
    merge: Merge, weights: tuple[float, ...], reference: Callable[[list[torch.Tensor]], torch.Tensor]
) -> None:
    layers = {layer: random_rows(9, seed=layer) for layer in range(5)}
    merged = merge_layers(Feature(Pooling.MEAN, (4, 0, 2), merge, weights), layers)
    expected = reference([torch.from_numpy(layers[layer]) for layer in (4, 0, 2)])
    np.testing.assert_allclose(merged, expected.numpy(), atol=1e-6)
    assert merged.dtype == np.float32


@pytest.mark.parametrize("merge", [Merge.CONCAT, Merge.MEAN, Merge.SUM])
def test_merge_of_one_layer_is_that_layer(merge: Merge) -> None:
    rows = random_rows(4)
    np.testing.assert_array_equal(merge_layers(Feature(Pooling.CLS, (2,), merge), {2: rows}), rows)


def test_weight_of_one_layer_counts() -> None:
    rows = random_rows(4)
    feature = Feature(Pooling.CLS, (2,), Merge.WEIGHTS, (2.0,))
    np.testing.assert_array_equal(merge_layers(feature, {2: rows}), 2 * rows)


def test_pooling_leaves_the_hidden_states_as_they_are() -> None:
    rows = random_rows(sum(LENGTHS))
    before = rows.copy()
    for pooling in REFERENCES:
        pool(Feature(pooling, (3,), normalize=True), rows, encodings(LENGTHS))
    sum_of([rows, rows])
    np.testing.assert_array_equal(rows, before)


def test_normalizing_keeps_zero_and_scales_the_rest_to_one() -> None:
    vectors = np.array([[0, 0], [3, 4], [1e-3, 0]], dtype=np.float32)
    np.testing.assert_allclose(normalize(vectors), np.array([[0, 0], [0.6, 0.8], [1, 0]]), rtol=1e-6)


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=20),
    pooling=st.sampled_from(list(REFERENCES)),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_any_batch_is_pooled_as_each_text_alone(lengths: list[int], pooling: Pooling, seed: int, scale: float) -> None:
    rows = random_rows(sum(lengths), seed) * np.float32(scale)
    vectors = pool(Feature(pooling, (3,)), rows, encodings(lengths))
    for vector, text in zip(vectors, split(rows, lengths), strict=True):
        expected = REFERENCES[pooling](text.double()).numpy()
        assert np.allclose(vector, expected, rtol=1e-4, atol=1e-5 * scale)


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
