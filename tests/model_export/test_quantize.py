"""The arithmetic of int8."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from berth.artifact import WeightBits
from berth.types import Float32Array
from model_export.quantize import CODES, CODINGS, LARGEST_CODES, RECTIFIED, Coding, quantize_columns

matrices = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False),
)


@pytest.mark.parametrize("bits", [7, 8])
@settings(deadline=None)
@given(matrix=matrices)
def test_no_weight_is_off_by_more_than_half_a_step(matrix: Float32Array, bits: WeightBits) -> None:
    codes, scales = quantize_columns(matrix, bits)
    assert codes.dtype == np.int8
    assert scales.dtype == np.float32
    assert scales.shape == (matrix.shape[1],)
    assert np.abs(codes.astype(int)).max() <= LARGEST_CODES[bits] < 2 ** (bits - 1)
    off = np.abs(codes * scales.astype(np.float64) - matrix)
    assert (off <= scales * 0.5001 + 1e-35).all()


@settings(deadline=None)
@given(matrices, st.integers(-20, 20))
def test_codes_do_not_depend_on_the_size_of_a_column(matrix: Float32Array, power: int) -> None:
    matrix = np.where(np.abs(matrix) < 1e-10, 0, matrix).astype(np.float32)
    codes, scales = quantize_columns(matrix)
    larger, larger_scales = quantize_columns(matrix * np.float32(2.0**power))
    np.testing.assert_array_equal(codes, larger)
    used = np.abs(matrix).max(axis=0) > 0
    np.testing.assert_array_equal(scales[used] * np.float32(2.0**power), larger_scales[used])


@pytest.mark.parametrize(
    ("bits", "expected"), [(8, [[95, -127], [-127, 25], [0, 0]]), (7, [[47, -63], [-63, 13], [0, 0]])]
)
def test_the_largest_of_each_column_has_the_largest_code(bits: WeightBits, expected: list[list[int]]) -> None:
    codes, _ = quantize_columns(np.array([[3, -5], [-4, 1], [0, 0]], dtype=np.float32), bits)
    assert codes.tolist() == expected


def test_weights_have_8_bits_by_default() -> None:
    matrix = np.array([[1, -5], [-2, 1]], dtype=np.float32)
    np.testing.assert_array_equal(quantize_columns(matrix)[0], quantize_columns(matrix, 8)[0])


@pytest.mark.parametrize(("bits", "held"), [(7, True), (8, False)])
def test_two_products_of_7_bits_are_held_by_16(bits: WeightBits, held: bool) -> None:
    assert (2 * CODES * LARGEST_CODES[bits] < 2**15) is held


def test_a_column_of_zeros() -> None:
    codes, scales = quantize_columns(np.zeros((3, 2), dtype=np.float32))
    assert not codes.any()
    assert scales.tolist() == [1, 1]


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS.keys())
def test_a_coding_ends_at_the_last_code(coding: Coding) -> None:
    assert coding.zero + coding.largest == CODES


def test_what_gelu_gives_is_never_under_the_first_code() -> None:
    x = np.linspace(-5, 0, 100_001)
    tanh = x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
    assert tanh.min() >= -RECTIFIED.zero * RECTIFIED.smallest_step
