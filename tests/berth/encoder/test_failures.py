"""A backend that fails costs its inputs alone, and the error names them."""

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import berth
import berth.encoder
from berth.artifact import Artifact
from berth.contract import FakeEncoder
from berth.encoder import Encoder
from berth.errors import DeviceLostError, EncoderError, InvalidInputError, OutOfMemoryError
from berth.model import Model
from berth.text.tokenizer import Tokenizer
from berth.types import TokenSequence, Vectors
from tests.berth.encoder.noting import LONG, PATIENCE, WIDTH, WORDS, MakeEncoder, Noting, sentences


def failing_on(length: int, error: Exception) -> Callable[[Sequence[TokenSequence]], list[Vectors]]:
    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if any(len(sequence) == length for sequence in sequences):
            raise error
        return FakeEncoder(width=WIDTH).encode(sequences)

    return encode


@pytest.mark.parametrize(
    "error",
    [RuntimeError("secret path"), EncoderError("secret path"), MemoryError(), DeviceLostError("gone")],
    ids=repr,
)
def test_an_input_that_fails_is_named(
    make_encoder: MakeEncoder, fake: Encoder, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    encoder = make_encoder(FakeEncoder(failing_on(9, error)))
    texts = ["a ship", "hello " * 7, "a boat"]
    for call in (encoder.encode, encoder.features):
        with pytest.raises(EncoderError) as caught:
            call(texts)
        assert str(caught.value).startswith("inputs[1]: ")
        assert "secret" not in str(caught.value)
    np.testing.assert_array_equal(encoder.encode("a ship"), fake.encode("a ship"))


def test_lack_of_memory_halves_the_batches_and_loses_nothing(
    make_encoder: MakeEncoder, fake: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    encoded: list[int] = []

    def small(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        tokens = sum(map(len, sequences))
        if tokens > 600:
            raise OutOfMemoryError("full")
        encoded.append(tokens)
        return FakeEncoder(width=WIDTH).encode(sequences)

    encoder = make_encoder(FakeEncoder(small), threads=1, max_batch_tokens=2000)
    texts = sentences(300)
    expected = fake.encode(texts)
    np.testing.assert_array_equal(encoder.encode(texts), expected)
    encoded.clear()
    np.testing.assert_array_equal(encoder.encode(texts), expected)
    assert max(encoded) <= 500, "the next ones are smaller from the start"
    assert max(encoded) >= 256, "and never smaller than one text may be"


def test_lack_of_memory_never_makes_batches_larger(
    make_encoder: MakeEncoder, backend: Noting, caplog: pytest.LogCaptureFixture
) -> None:
    """A text may have 256 tokens, but a bound that its user set below that stays."""
    caplog.set_level(logging.CRITICAL + 1)
    full = threading.Event()
    full.set()

    def small(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if full.is_set() and len(sequences) > 1:
            raise OutOfMemoryError("full")
        return backend.encode(sequences)

    encoder = make_encoder(FakeEncoder(small), threads=1, max_batch_tokens=64)
    encoder.encode(sentences(30, longest=6))
    full.clear()
    backend.batches.clear()
    encoder.encode(sentences(100, longest=6))
    assert max(map(sum, backend.lengths)) in range(50, 65)


def test_where_there_is_no_memory_for_one_text_it_is_named(
    make_encoder: MakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    encoder = make_encoder(FakeEncoder(failing_on(9, OutOfMemoryError("full"))))
    with pytest.raises(EncoderError, match=r"^inputs\[2\]: "):
        encoder.encode(["a ship", "a boat", "hello " * 7])


def test_after_an_input_that_fails_the_rest_is_not_encoded(
    artifact: Artifact, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 4)
    gate = threading.Event()
    batches: list[int] = []

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        batches.append(len(sequences))
        assert gate.wait(PATIENCE), "the test opens the gate"
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    model = Model(artifact.manifest, tokenizer, [FakeEncoder(wait)])
    encoder = Encoder.of(model, threads=1, max_batch_tokens=1)
    with pytest.raises(InvalidInputError, match=r"^inputs\[5\]: "):
        encoder.encode([*sentences(5), LONG], truncate="error")
    gate.set()
    encoder.close()
    assert len(batches) <= 1, "the one that had begun, if any"


def test_lost_device_gets_no_more(make_encoder: MakeEncoder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    def fail(_: Sequence[TokenSequence]) -> list[Vectors]:
        raise DeviceLostError("gone")

    encoder = make_encoder(FakeEncoder(fail), other := Noting(), threads=1)
    with pytest.raises(EncoderError, match="device has failed"):
        encoder.encode(WORDS[0])
    for word in WORDS:
        encoder.encode(word)
    assert len(other.batches) == len(WORDS)
