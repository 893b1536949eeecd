"""Hidden states and texts to pool them for."""

import numpy as np

from berth.types import Encoding, Float32Array, Pooling

WIDTH = 12
LENGTHS = [2, 7, 3, 31, 2, 3]
POOLINGS = [pooling for pooling in Pooling if pooling not in {Pooling.POOLER, Pooling.WORDS}]
"""The poolings of hidden states alone: the pooler is computed by the graph, and `words` needs each token's word."""


def random_rows(tokens: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(size=(tokens, WIDTH)).astype(np.float32)


def encodings(lengths: list[int]) -> list[Encoding]:
    """Make texts whose first and last tokens are special; their words have two tokens, the last one perhaps one."""
    made = []
    for length in lengths:
        ids = np.zeros(length, dtype=np.int32)
        special = np.zeros(length, dtype=bool)
        special[[0, -1]] = True
        words = np.full(length, -1, dtype=np.int32)
        words[1:-1] = np.sort(np.arange(length - 2) // 2)
        made.append(Encoding(ids, ids, special, words))
    return made
