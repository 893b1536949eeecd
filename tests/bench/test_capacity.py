"""What is made of a point, and what the encoder that sleeps does."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.capacity import Point, cores_of, errors_of
from bench.check import Sample
from bench.dialects import raw_bytes
from bench.fake_server import load
from bench.figures import Window
from bench.load import Record
from bench.model import load_model
from bench.processes import Usage

POINT = Point("fp32", 32, "bulk", 18, 7000.0, 8750.0, 0.9, 0.2, {})


def record(*answers: bytes) -> Record:
    sample = Sample(8)
    for number, answer in enumerate(answers):
        sample.offer(number, answer)
    return Record(Window(10, 14), sample, before=Usage(3, 0, 0, 0), after=Usage(9, 0, 0, 0))


def test_ratio_is_of_the_ideal() -> None:
    assert POINT.ratio == 0.8
    assert POINT.row()[:6] == ["fp32", "32", "bulk", 7000, 8750, 0.8]


def test_a_client_that_is_the_limit_is_told() -> None:
    assert POINT.limit == ""
    assert replace(POINT, client_cores=0.9).limit == "the client"
    assert replace(POINT, client_cores=0.9, errors={"HTTP 429": 3}).limit == "NOT VALID {'HTTP 429': 3}"


def test_cores_are_of_the_window() -> None:
    assert cores_of(record()) == 1.5


def test_answers_without_a_vector_a_text_are_errors() -> None:
    good = np.zeros((2, 4), np.float32).tobytes()
    assert errors_of(record(good, good), raw_bytes(4), 2) == {}
    assert errors_of(record(good, good[:16]), raw_bytes(4), 2) == {"answers of another size": 1}


def test_raw_bytes_that_are_no_rows_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="reshape"):
        raw_bytes(4).read(bytes(20))


def test_the_encoder_sleeps_by_the_token_and_gives_vectors_as_the_real_one_does(tiny_artifact: Path) -> None:
    real = load_model(tiny_artifact)
    fake = load(real.artifact, (), None, seconds_per_batch=3.84)
    sequences = real.sequences(["a text", "of the world"])
    started = time.perf_counter()
    found = fake.backends[0].encode(sequences)
    assert time.perf_counter() - started >= 0.01 * sum(map(len, sequences))
    for ours, theirs in zip(found, real.encode(sequences), strict=True):
        assert [vector.shape for vector in ours] == [vector.shape for vector in theirs]
        assert [vector.dtype for vector in ours] == [vector.dtype for vector in theirs]
