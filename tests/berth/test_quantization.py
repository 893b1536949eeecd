"""Smaller numbers for vectors."""

import numpy as np
import pytest

from berth.quantization import to_binary, to_int8
from berth.types import Float32Array


def random_vectors(width: int) -> Float32Array:
    return np.random.default_rng(5).normal(size=(50, width)).astype(np.float32)


def test_int8_by_hand() -> None:
    numbers, scales = to_int8(np.array([[1, -2, 0.5, 0], [254, 127, -254, 1]], dtype=np.float32))
    assert numbers.tolist() == [[64, -127, 32, 0], [127, 64, -127, 0]]
    np.testing.assert_allclose(scales, [2 / 127, 2], rtol=1e-6)
    assert (numbers.dtype.name, scales.dtype.name) == ("int8", "float32")


def test_int8_times_scale_is_the_vector_within_half_a_step() -> None:
    vectors = random_vectors(384)
    numbers, scales = to_int8(vectors)
    assert (np.abs(numbers * scales[:, None] - vectors) <= scales[:, None] * 0.5001).all()
    assert np.abs(numbers).max(axis=1).tolist() == [127] * 50


def test_int8_of_a_zero_vector_is_zero() -> None:
    numbers, scales = to_int8(np.zeros((1, 3), dtype=np.float32))
    assert numbers.tolist() == [[0, 0, 0]]
    assert np.isfinite(scales).all()


def test_binary_by_hand() -> None:
    vectors = np.array([[1, -1, 1, -1, -1, -1, -1, 0.5], [0, -1, -1, -1, -1, -1, -1, -1], [1] * 8], dtype=np.float32)
    assert to_binary(vectors).tolist() == [[0b10100001 - 128], [-128], [127]]


@pytest.mark.parametrize(("width", "bytes_"), [(1, 1), (8, 1), (9, 2), (384, 48)])
def test_binary_takes_an_eighth(width: int, bytes_: int) -> None:
    assert to_binary(random_vectors(width)).shape == (50, bytes_)
