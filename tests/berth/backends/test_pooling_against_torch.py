"""Every pooling and every merge against the same in torch, text by text."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.backends.pooling import merge_layers, pool
from berth.types import Float32Array, Merge, Pooling, ResolvedFeature
from tests.berth.backends.states import LENGTHS, POOLINGS, WIDTH, encodings, random_rows

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
    Pooling.MEAN_SQRT_LEN: lambda rows: rows.sum(0) / len(rows) ** 0.5,
    Pooling.NONE: lambda rows: rows,
}


def test_every_pooling_has_its_reference() -> None:
    assert set(REFERENCES) == set(POOLINGS)


def split(rows: Float32Array, lengths: list[int]) -> list[torch.Tensor]:
    return list(torch.split(torch.from_numpy(rows), lengths))


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
@pytest.mark.parametrize("pooling", REFERENCES)
def test_pooling_is_torchs(pooling: Pooling, normalized: bool) -> None:
    rows = random_rows(sum(LENGTHS))
    vectors = pool(ResolvedFeature(pooling, (3,), normalize=normalized), rows, encodings(LENGTHS))
    assert len(vectors) == len(LENGTHS)
    for vector, text in zip(vectors, split(rows, LENGTHS), strict=True):
        expected = REFERENCES[pooling](text)
        if normalized:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)
        assert vector.dtype == np.float32


@pytest.mark.parametrize("pooling", REFERENCES)
def test_special_tokens_can_be_left_out(pooling: Pooling) -> None:
    lengths = [length for length in LENGTHS if length > 2]
    rows = random_rows(sum(lengths))
    vectors = pool(ResolvedFeature(pooling, (3,), exclude_special=True), rows, encodings(lengths))
    for vector, text in zip(vectors, split(rows, lengths), strict=True):
        np.testing.assert_allclose(vector, REFERENCES[pooling](text[1:-1]).numpy(), atol=1e-6)


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MEAN_MAX], ids=str)
def test_poolings_are_joined_projected_normalized_and_cut(pooling: Pooling, normalized: bool) -> None:
    rows, further = random_rows(sum(LENGTHS)), (Pooling.CLS, Pooling.MEAN)
    feature = ResolvedFeature(pooling, (3,), normalize=normalized, further=further, projected=4, dimensions=3)
    width = feature.width(WIDTH)
    joined = ResolvedFeature(pooling, (3,), further=further).width(WIDTH)
    assert (width, joined) == (3, WIDTH * (4 if pooling is Pooling.MEAN_MAX else 3))
    matrix = random_rows(joined, seed=1)[:, :4]
    vectors = pool(feature, rows, encodings(LENGTHS), lambda pooled: pooled @ matrix)
    for vector, text in zip(vectors, split(rows, LENGTHS), strict=True):
        expected = torch.cat([REFERENCES[each](text) for each in (pooling, *further)]) @ torch.from_numpy(matrix)
        if normalized:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        np.testing.assert_allclose(vector, expected[:3].numpy(), atol=1e-5)


@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "normalized"])
def test_words_are_means_of_their_tokens(normalized: bool) -> None:
    rows = random_rows(sum(LENGTHS))
    texts = encodings(LENGTHS)
    vectors = pool(ResolvedFeature(Pooling.WORDS, (3,), normalize=normalized), rows, texts)
    for vector, text, encoding in zip(vectors, split(rows, LENGTHS), texts, strict=True):
        assert encoding.words is not None
        words = torch.from_numpy(encoding.words)
        means = [text[words == word].mean(0) for word in range(int(words.max()) + 1)]
        expected = torch.stack(means) if means else torch.empty(0, WIDTH)
        if normalized:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        assert vector.shape == expected.shape
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)


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
    merged = merge_layers(ResolvedFeature(Pooling.MEAN, (4, 0, 2), merge, weights), layers)
    expected = reference([torch.from_numpy(layers[layer]) for layer in (4, 0, 2)])
    np.testing.assert_allclose(merged, expected.numpy(), atol=1e-6)
    assert merged.dtype == np.float32


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=20),
    pooling=st.sampled_from(list(REFERENCES)),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_any_batch_is_pooled_as_each_text_alone(lengths: list[int], pooling: Pooling, seed: int, scale: float) -> None:
    rows = random_rows(sum(lengths), seed) * np.float32(scale)
    vectors = pool(ResolvedFeature(pooling, (3,)), rows, encodings(lengths))
    for vector, text in zip(vectors, split(rows, lengths), strict=True):
        expected = REFERENCES[pooling](text.double()).numpy()
        assert np.allclose(vector, expected, rtol=1e-4, atol=1e-5 * scale)
