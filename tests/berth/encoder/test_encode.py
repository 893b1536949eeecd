"""`encode`: texts to vectors, in their order, whatever is beside them."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import berth
import berth.encoder
from berth.contract import FakeEncoder
from berth.encoder import WINDOW_TEXTS, Encoder
from berth.text.tokenizer import Tokenizer
from berth.types import TokenSequence, Vectors
from tests.berth.encoder.noting import PATIENCE, WIDTH, MakeEncoder, Noting, alone, sentences


def test_a_string_gives_a_vector_and_a_list_a_row_a_text(either: Encoder) -> None:
    single, many, one, none = (either.encode(texts) for texts in ("a ship", ["a ship", "a boat"], ["a ship"], []))
    assert [each.shape for each in (single, many, one, none)] == [(WIDTH,), (2, WIDTH), (1, WIDTH), (0, WIDTH)]
    assert {each.dtype for each in (single, many, one, none)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(single, many[0], atol=1e-5)
    np.testing.assert_array_equal(single, one[0])


@pytest.mark.parametrize(
    "texts",
    [["a ship", "a boat"], ("a ship", "a boat"), iter(["a ship", "a boat"]), np.array(["a ship", "a boat"])],
    ids=["list", "tuple", "iterator", "array"],
)
def test_whatever_yields_texts_is_taken(fake: Encoder, texts: Any) -> None:
    np.testing.assert_array_equal(fake.encode(texts), alone(fake, ["a ship", "a boat"]))


def test_the_models_vectors_are_those_it_was_trained_to_give(real: Encoder) -> None:
    ship, boat, bread = real.encode(["a ship in harbour", "a boat at its berth", "a slice of bread"])
    assert [float(np.linalg.norm(each)) for each in (ship, boat, bread)] == pytest.approx([1, 1, 1], abs=1e-5)
    assert ship @ boat > 0.4
    assert ship @ bread < 0.2


def test_vectors_come_in_the_order_of_the_texts_though_they_are_sorted_inside(fake: Encoder, backend: Noting) -> None:
    texts = sentences(200)
    together = fake.encode(texts)
    lengths = [max(batch) for batch in backend.lengths]
    assert lengths == sorted(lengths, reverse=True), "the longest first, so that no thread is left with one at the end"
    np.testing.assert_array_equal(together, alone(fake, texts))


def test_vectors_of_the_model_are_the_same_alone_and_in_any_company(real: Encoder) -> None:
    texts = sentences(60)
    np.testing.assert_allclose(real.encode(texts), alone(real, texts), atol=1e-5)


def test_more_texts_than_are_tokenized_at_once_keep_their_order(fake: Encoder, backend: Noting) -> None:
    texts = sentences(2 * WINDOW_TEXTS + 10, longest=4)
    vectors = fake.encode(iter(texts))
    assert sum(map(len, backend.batches)) == len(vectors) == len(texts)
    chosen = [0, 1, WINDOW_TEXTS - 1, WINDOW_TEXTS, WINDOW_TEXTS + 1, 2 * WINDOW_TEXTS, len(texts) - 1]
    np.testing.assert_array_equal(vectors[chosen], alone(fake, [texts[index] for index in chosen]))
    assert len(np.unique(vectors, axis=0)) == len(texts)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_the_last_window_may_be_of_any_size(fake: Encoder, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 4)
    texts = sentences(count)
    np.testing.assert_array_equal(fake.encode(texts), alone(fake, texts))


def test_the_next_texts_are_tokenized_while_some_are_encoded(
    make_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized = threading.Semaphore(0)
    encode = Tokenizer.encode

    def note(*arguments: Any, **options: Any) -> Any:
        tokenized.release()
        return encode(*arguments, **options)

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        for _ in range(2 if not begun.is_set() else 0):
            assert tokenized.acquire(timeout=PATIENCE), "the second window is tokenized beside the first one's batch"
        begun.set()
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    begun = threading.Event()
    monkeypatch.setattr(Tokenizer, "encode", note)
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 4)
    assert make_encoder(FakeEncoder(wait), threads=1).encode(sentences(8)).shape == (8, WIDTH)


def test_what_comes_twice_is_encoded_once(fake: Encoder, backend: Noting) -> None:
    vectors = fake.encode(["a ship", "a boat", "a ship", "a rope", "a boat", "a ship"])
    assert sum(map(len, backend.batches)) == 3
    np.testing.assert_array_equal(vectors[[0, 0, 1]], vectors[[2, 5, 4]])
    np.testing.assert_array_equal(vectors, alone(fake, ["a ship", "a boat", "a ship", "a rope", "a boat", "a ship"]))


def test_batches_are_bounded(make_encoder: MakeEncoder, backend: Noting) -> None:
    make_encoder(backend, threads=1, max_batch_tokens=50).encode(sentences(100))
    assert all(sum(batch) <= 50 or len(batch) == 1 for batch in backend.lengths)
    assert max(map(len, backend.lengths)) > 1


def test_the_backend_says_how_large_batches_are_where_nobody_else_does(make_encoder: MakeEncoder) -> None:
    backend = Noting(max_batch_tokens=70)
    make_encoder(backend, threads=1).encode(sentences(100))
    assert max(map(sum, backend.lengths)) in range(60, 71)
