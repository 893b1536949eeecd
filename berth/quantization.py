"""Smaller numbers for vectors that are stored or sent."""

import numpy as np
from numpy.typing import NDArray

from berth.types import Float32Array


def to_int8(vectors: Float32Array) -> tuple[NDArray[np.int8], Float32Array]:
    """Round each vector [n, width] to -127 … 127 and give its scale [n]: number x scale is the vector again, nearly."""
    scales = np.maximum(np.abs(vectors).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def to_binary(vectors: Float32Array) -> NDArray[np.int8]:
    """Keep each number's sign: eight to a byte, the first the highest bit, 1 where it is above 0; the byte less 128.

    This is the `binary` of sentence-transformers, Cohere and Jina; a width that is no multiple of 8 is filled with 0.
    """
    return (np.packbits(vectors > 0, axis=1).astype(np.int16) - 128).astype(np.int8)
