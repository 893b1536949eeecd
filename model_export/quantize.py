"""The arithmetic of int8: weights by output, activations by token.

A product x @ w becomes (codes of x @ codes of w) * scale of the row * scale of the column, in whole numbers between.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from berth.artifact import WeightBits
from berth.types import Float32Array

Int8Array = NDArray[np.int8]

LARGEST_CODES: dict[WeightBits, int] = {8: 127, 7: 63}
"""Weights are coded from minus this to this, zero as 0.

x86 without VNNI adds two products of an activation's code and a weight's in 16 bits (`vpmaddubsw`, which stops at
32,767): 2 * 255 * 127 = 64,770 may be past that, 2 * 255 * 63 = 32,130 never is.
"""

CODES = 255
"""Activations are coded from 0 to 255."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How the rows of an activation are coded: which code is zero, and how large a row's step must be."""

    zero: int
    smallest_step: float = 0.0

    @property
    def largest(self) -> int:
        """The code distance from zero to the top."""
        return CODES - self.zero


SYMMETRIC = Coding(128)
"""For rows of either sign: the largest absolute value decides the step."""

RECTIFIED = Coding(16, smallest_step=0.1701 / 16)
"""For what leaves GELU or ReLU: never under -0.1701, so that the largest value alone decides, and nearly all codes are
left for what is above zero: half the step of the symmetric coding."""

CODINGS = {"symmetric": SYMMETRIC, "rectified": RECTIFIED}


def quantize_columns(matrix: Float32Array, bits: WeightBits = 8) -> tuple[Int8Array, Float32Array]:
    """Code a matrix [inputs, outputs] column by column; gives the codes and a scale for each column.

    A column of zeros has the scale 1, so that nothing is divided by zero.
    """
    largest, last = np.abs(matrix).max(axis=0), LARGEST_CODES[bits]
    scales = np.where(largest > 0, largest / np.float32(last), np.float32(1)).astype(np.float32)
    # A step so small that it has no float32 of full precision could put a code past the range.
    codes = np.clip(np.rint(matrix / scales), -last, last)
    return codes.astype(np.int8), scales
