"""Tables that positions come to: the turns of rotary ones, and the bias of each distance."""

import math

import numpy as np

from berth.types import Float32Array
from model_export.network import Buckets, Rotary


def turns(rotary: Rotary, head_size: int, tokens: int) -> dict[str, Float32Array]:
    """Give `cos` and `sin`, each [tokens, head size / 2], as com.microsoft's RotaryEmbedding reads them.

    Angles are rounded to float32 where transformers rounds them: the models were trained with such angles.
    """
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    frequencies = np.float32(1) / np.power(np.float32(rotary.theta), exponents) / np.float32(rotary.factor)
    angles = np.outer(np.arange(tokens, dtype=np.float32), frequencies.astype(np.float32)).astype(np.float64)
    return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


def bias_by_distance(buckets: Buckets, table: Float32Array, tokens: int) -> Float32Array:
    """Give the bias of each distance of a key from its query, [heads, 2 x tokens - 1], -(tokens - 1) first.

    `table` is [buckets, heads]. Half of the buckets are for keys behind the query; of each half the first half has a
    bucket a distance, the rest grow by a power, in float32: `relative_position_bucket` in transformers.
    """
    distances = np.arange(1 - tokens, tokens)
    half = buckets.count // 2
    exact = half // 2
    sizes = np.abs(distances)
    with np.errstate(divide="ignore"):
        grown = np.log(sizes.astype(np.float32) / np.float32(exact))
    steps = grown / np.float32(math.log(buckets.max_distance / exact)) * np.float32(half - exact)
    large = np.minimum(exact + np.maximum(steps, 0).astype(np.intp), half - 1)
    rows = np.where(sizes < exact, sizes, large) + np.where(distances > 0, half, 0)
    return np.ascontiguousarray(table[rows].T)
