"""Batches at once, on all devices, and the end of an encoder."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import berth
import berth.encoder
from berth.artifact import Artifact
from berth.contract import FakeEncoder
from berth.encoder import Encoder
from berth.errors import EncoderError, InvalidInputError
from berth.features import Feature
from berth.model import Model
from berth.text.tokenizer import Tokenizer
from berth.types import Float32Array, TokenSequence, Vectors
from tests.berth.encoder.noting import PATIENCE, WIDTH, WORDS, MakeEncoder, Noting, alone, sentences


def test_as_many_batches_run_at_once_as_there_are_threads(make_encoder: MakeEncoder) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    def meet(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        together.wait()
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    encoder = make_encoder(FakeEncoder(meet), threads=3, max_batch_tokens=1)
    assert encoder.encode(sentences(3)).shape == (3, WIDTH)


def test_batches_go_to_all_devices(make_encoder: MakeEncoder) -> None:
    backends = [Noting(), Noting()]
    encoder = make_encoder(*backends, threads=2, max_batch_tokens=1)
    texts = sentences(10)
    vectors = encoder.encode(texts)
    assert [len(backend.batches) for backend in backends] == [5, 5]
    np.testing.assert_array_equal(vectors, alone(encoder, texts))


def test_several_threads_may_encode_at_once(either: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 16)
    texts = sentences(40, longest=8)
    expected = either.encode(texts)
    together = threading.Barrier(6, timeout=PATIENCE)

    def encode(shift: int) -> Float32Array:
        together.wait()
        for _ in range(3):
            vectors = either.encode(texts[shift:] + texts[:shift])
            [first] = either.features(texts[shift : shift + 1], [Feature("none")])
            assert len(first[0]) == len(either.tokens([texts[shift]])[0])
        return np.roll(vectors, shift, axis=0)

    with ThreadPoolExecutor(6) as pool:
        for vectors in pool.map(encode, range(6)):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_the_block_closes_the_model_and_a_second_time_is_none(
    artifact: Artifact, tokenizer: Tokenizer, encoder_threads: Callable[[], list[threading.Thread]]
) -> None:
    class Once(Noting):
        def close(self) -> None:
            assert not self.closed
            super().close()

    backends = [Once(), Once()]
    before = set(threading.enumerate())
    with Encoder.of(Model(artifact.manifest, tokenizer, backends), threads=2) as encoder:
        assert encoder.encode(sentences(5)).shape == (5, WIDTH)
        assert set(threading.enumerate()) > before
        assert [backend.closed for backend in backends] == [False, False]
    assert [backend.closed for backend in backends] == [True, True]
    assert set(threading.enumerate()) <= before
    encoder.close()
    with pytest.raises(EncoderError):
        encoder.encode("a ship")


def test_the_block_closes_the_model_where_it_fails(artifact: Artifact, tokenizer: Tokenizer, backend: Noting) -> None:
    with pytest.raises(InvalidInputError), Encoder.of(Model(artifact.manifest, tokenizer, [backend])) as encoder:
        encoder.encode("")
    assert backend.closed


def test_what_runs_is_finished_before_the_model_goes(artifact: Artifact, tokenizer: Tokenizer) -> None:
    entered, gate = threading.Event(), threading.Event()

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        entered.set()
        assert gate.wait(PATIENCE), "the test opens the gate"
        assert not slow.closed
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    slow = FakeEncoder(wait)
    encoder = Encoder.of(Model(artifact.manifest, tokenizer, [slow]), threads=1)
    with ThreadPoolExecutor(2) as pool:
        vectors = pool.submit(encoder.encode, ["a ship", "a boat"])  # one batch
        assert entered.wait(PATIENCE)
        closed = pool.submit(encoder.close)
        until = time.monotonic() + PATIENCE
        while not encoder._closed and time.monotonic() < until:
            time.sleep(0.001)
        assert encoder._closed
        assert not closed.done()
        gate.set()
        assert vectors.result(PATIENCE).shape == (2, WIDTH)
        closed.result(PATIENCE)
    assert slow.closed


def test_what_has_not_begun_when_it_closes_is_an_error_of_ours(
    artifact: Artifact, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second window of a long call, as the first is being encoded; and who comes while `close` still waits."""
    monkeypatch.setattr("berth.encoder.WINDOW_TEXTS", 1)
    entered, gate = threading.Event(), threading.Event()

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        entered.set()
        assert gate.wait(PATIENCE), "the test opens the gate"
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    encoder = Encoder.of(Model(artifact.manifest, tokenizer, [FakeEncoder(wait)]), threads=1)
    with ThreadPoolExecutor(2) as pool:
        vectors = pool.submit(encoder.encode, ["a", "b", "c"])
        assert entered.wait(PATIENCE)
        closed = pool.submit(encoder.close)
        while not encoder._closed:
            time.sleep(0.001)
        with pytest.raises(EncoderError, match="the encoder is closed"):
            encoder.encode(["a"])
        gate.set()
        with pytest.raises(EncoderError, match="the encoder is closed"):
            vectors.result(PATIENCE)
        closed.result(PATIENCE)


def test_devices_take_turns_over_calls(make_encoder: MakeEncoder) -> None:
    backends = [Noting(), Noting()]
    encoder = make_encoder(*backends, threads=1)
    for word in WORDS[:6]:
        encoder.encode(word)
    assert [len(backend.batches) for backend in backends] == [3, 3]


def test_closed_encoder_says_so(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(Noting())
    encoder.close()
    for texts in ("a", ["a"], []):
        with pytest.raises(EncoderError, match="the encoder is closed"):
            encoder.encode(texts)
