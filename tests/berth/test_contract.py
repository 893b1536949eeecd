"""The backend that stands in for a model: what it answers, and how long it takes."""

import time
from collections.abc import Sequence

import numpy as np
import pytest

from berth.backends.cpu.encoder import CpuEncoder
from berth.contract import FakeEncoder
from berth.types import Encoding, Merge, Pooling, ResolvedFeature, TokenSequence, Vectors

MEAN = ResolvedFeature(Pooling.MEAN, (6,))


def sequence(ids: Sequence[int], *features: ResolvedFeature, words: Sequence[int] = ()) -> TokenSequence:
    """Make a sequence whose first and last tokens are special."""
    special = np.zeros(len(ids), dtype=bool)
    special[[0, -1]] = True
    array = np.array(ids, dtype=np.int32)
    counted = np.array(words, dtype=np.int32) if words else None
    return TokenSequence(Encoding(array, np.zeros_like(array), special, counted), features or (MEAN,))


def test_the_same_ids_have_the_same_vectors_whatever_is_beside_them() -> None:
    backend = FakeEncoder()
    texts = [sequence(ids) for ids in ([101, 5, 102], [101, 9, 9, 9, 102], [101, 5, 6, 7, 102])]
    alone = [backend.encode([text])[0][0] for text in texts]
    together = backend.encode([*texts[::-1], sequence([101, 5, 102])])
    for vector, [beside] in zip([*alone[::-1], alone[0]], together, strict=True):
        np.testing.assert_array_equal(vector, beside)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    assert np.abs(alone[0] - alone[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        (ResolvedFeature(Pooling.CLS, (6,)), (8,)),
        (ResolvedFeature(Pooling.MEAN, (6,)), (8,)),
        (ResolvedFeature(Pooling.MAX, (0,)), (8,)),
        (ResolvedFeature(Pooling.LAST, (6,)), (8,)),
        (ResolvedFeature(Pooling.WEIGHTED_MEAN, (6,)), (8,)),
        (ResolvedFeature(Pooling.MEAN_MAX, (6,)), (16,)),
        (ResolvedFeature(Pooling.POOLER, (6,)), (8,)),
        (ResolvedFeature(Pooling.CLS, (6,), further=(Pooling.MEAN_MAX,)), (24,)),
        (ResolvedFeature(Pooling.CLS, (6,), projected=5), (5,)),
        (ResolvedFeature(Pooling.CLS, (6,), dimensions=3), (3,)),
        (ResolvedFeature(Pooling.CLS, (6,), projected=5, dimensions=6), (5,)),
        (ResolvedFeature(Pooling.MEAN, (5, 6)), (16,)),
        (ResolvedFeature(Pooling.MEAN_MAX, (4, 5, 6)), (48,)),
        (ResolvedFeature(Pooling.MEAN, (5, 6), Merge.MEAN), (8,)),
        (ResolvedFeature(Pooling.MEAN, (5, 6), Merge.WEIGHTS, (0.5, 0.5)), (8,)),
        (ResolvedFeature(Pooling.NONE, (6,)), (5, 8)),
        (ResolvedFeature(Pooling.NONE, (5, 6)), (5, 16)),
        (ResolvedFeature(Pooling.NONE, (6,), exclude_special=True), (3, 8)),
        (ResolvedFeature(Pooling.WORDS, (6,)), (2, 8)),
        (ResolvedFeature(Pooling.WORDS, (5, 6)), (2, 16)),
    ],
    ids=str,
)
def test_vectors_have_the_shapes_that_a_model_gives(feature: ResolvedFeature, shape: tuple[int, ...]) -> None:
    """The words count from 3: the text's beginning may have been cut off."""
    [[vectors]] = FakeEncoder().encode([sequence([101, 5, 6, 7, 102], feature, words=[-1, 3, 3, 4, -1])])
    assert (vectors.shape, vectors.dtype) == (shape, np.dtype(np.float32))
    assert np.isfinite(vectors).all()


def test_shapes_are_those_of_the_real_encoder(encoder: CpuEncoder) -> None:
    features = [
        ResolvedFeature(pooling, layers, merge, exclude_special=excluded)
        for pooling in set(Pooling) - {Pooling.POOLER, Pooling.CLS}
        for layers, merge in (((6,), Merge.CONCAT), ((5, 6), Merge.CONCAT), ((5, 6), Merge.SUM))
        for excluded in (False, True)
    ]
    text = sequence([101, 7592, 2088, 999, 102], *features, words=[-1, 2, 2, 3, -1])
    [real], [fake] = encoder.encode([text]), FakeEncoder(width=384).encode([text])
    assert [(each.shape, each.dtype) for each in fake] == [(each.shape, each.dtype) for each in real]


def test_one_array_a_feature_in_their_order() -> None:
    cls, none = ResolvedFeature(Pooling.CLS, (6,)), ResolvedFeature(Pooling.NONE, (6,))
    results = FakeEncoder().encode([sequence([101, 5, 102], none, cls, none), sequence([101, 102], cls)])
    assert [[each.shape for each in vectors] for vectors in results] == [[(3, 8), (8,), (3, 8)], [(8,)]]


def test_a_function_may_answer_in_its_place() -> None:
    batches: list[int] = []

    def answer(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        batches.append(len(sequences))
        return [[np.full(3, len(each), dtype=np.float32)] for each in sequences]

    results = FakeEncoder(answer).encode([sequence([101, 102]), sequence([101, 5, 102])])
    assert [vectors[0].tolist() for vectors in results] == [[2, 2, 2], [3, 3, 3]]
    assert batches == [2]


@pytest.mark.parametrize("answer", [None, lambda sequences: [[] for _ in sequences]], ids=["vectors", "a function"])
def test_it_takes_as_long_as_its_tokens_say(monkeypatch: pytest.MonkeyPatch, answer: None) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    backend = FakeEncoder(answer, seconds_per_token=0.001)
    backend.encode([sequence([101, 5, 102]), sequence([101, 102])])
    assert slept == pytest.approx([0.005])
    FakeEncoder(answer).encode([sequence([101, 102])])
    assert len(slept) == 1


def test_it_says_how_large_its_batches_are_and_notes_that_it_was_closed() -> None:
    backend = FakeEncoder(max_batch_tokens=77)
    assert (backend.max_batch_tokens, backend.closed) == (77, False)
    backend.close()
    assert backend.closed
