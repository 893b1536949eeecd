"""What goes round and how it is counted."""

import numpy as np
import pytest
from transformers import BertConfig, BertModel

from bench.gpu.speed import in_flight, operations, scheduled
from bench.gpu.texts import lengths, sentences
from bench.gpu.torch_side import TorchEncoder, padded_batches, rounds, tokens_per_second
from berth.batching.queue import MAX_PADDING
from berth.types import TokenSequence, Vectors

UNITS = sentences(16, 200, 40, 2, 97)


def names(batches: list[list[TokenSequence]]) -> list[int]:
    return sorted(id(sequence) for batch in batches for sequence in batch)


def test_lengths_are_mixed_around_their_mean_and_the_longest_alone() -> None:
    assert np.mean(lengths(100, 10_000, 512)) == pytest.approx(100, rel=0.02)
    assert {1, 199} <= set(lengths(100, 10_000, 512))
    assert max(lengths(400, 10_000, 512)) == 512
    assert lengths(512, 3, 512) == [512] * 3


def test_scheduled_batches_hold_every_text_once_and_keep_to_the_services_bounds() -> None:
    batches = scheduled(UNITS, 256)
    assert names(batches) == names([UNITS])
    for batch in batches:
        tokens = sum(map(len, batch))
        assert tokens <= 256
        assert len(batch) * max(map(len, batch)) <= MAX_PADDING * tokens


@pytest.mark.parametrize("by_length", [False, True])
def test_padded_batches_hold_every_text_once_within_their_area(by_length: bool) -> None:
    batches = padded_batches(UNITS, 256, by_length=by_length)
    assert names(batches) == names([UNITS])
    assert all(len(batch) * max(map(len, batch)) <= 256 for batch in batches)


def test_sorting_saves_padding() -> None:
    areas = [
        sum(len(batch) * max(map(len, batch)) for batch in padded_batches(UNITS, 512, by_length=by_length))
        for by_length in (False, True)
    ]
    assert areas[1] < areas[0]


def test_operations_of_a_layer_by_hand() -> None:
    """2 texts of 3 tokens, hidden 4, inner 8: five products, and the attention's two, [3, 3] scores a text."""
    products = 6 * (4 * 12 + 4 * 4 + 4 * 8 + 8 * 4)
    attention = 2 * (3 * 3 * 4 + 3 * 3 * 4)
    assert operations(4, 8, 1, [3, 3]) == 2 * (products + attention)


def test_torch_encoder_pads_without_touching_the_vectors() -> None:
    config = BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40)
    encode = TorchEncoder(BertModel(config).eval(), "cpu")
    together = encode(UNITS[:6])
    for sequence, vector in zip(UNITS[:6], together, strict=True):
        np.testing.assert_allclose(encode([sequence])[0], vector, atol=1e-5)


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_rounds_are_whole(seconds: float) -> None:
    """In a part of one, of batches by length, there would be the shortest texts alone."""
    batches = [UNITS[:size] for size in range(1, 9)]
    sizes = [len(batch) for batch in rounds(batches, seconds)]
    assert sizes == [*range(1, 9)] * (len(sizes) // 8)
    assert sizes


def test_rates_count_the_texts_own_tokens() -> None:
    def encode(sequences: list[TokenSequence]) -> list[Vectors]:
        seen.append(sum(map(len, sequences)))
        return []

    seen: list[int] = []
    assert tokens_per_second(encode, [UNITS[:3]], 0.01) > 0
    assert in_flight(encode, [UNITS[:3]], 0.01) > 0  # type: ignore[arg-type]  # a list will do here
    assert set(seen) == {sum(map(len, UNITS[:3]))}
