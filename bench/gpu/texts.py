"""Texts as token ids: lengths drawn around a mean, ids at random."""

import numpy as np

from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence

CLS, SEP, FIRST_WORD = 2, 3, 5
"""Ids in the vocabulary of the random checkpoints; for a real model they are ids like any other."""


def lengths(mean: int, count: int, longest: int) -> list[int]:
    """Draw lengths evenly from 1 to twice the mean, so that they are mixed; all are `longest` where the mean is."""
    if mean >= longest:
        return [longest] * count
    drawn = np.random.default_rng([mean, count]).integers(1, min(2 * mean, longest + 1), size=count)
    return [int(length) for length in drawn]


def encoding(length: int, seed: int, vocabulary: int) -> Encoding:
    """Make a text of a length: random ids, framed where there is room."""
    ids = np.random.default_rng([length, seed]).integers(FIRST_WORD, vocabulary, size=length, dtype=np.int32)
    special = np.zeros(length, dtype=bool)
    words = np.arange(length, dtype=np.int32)
    if length > 2:
        ids[[0, -1]] = CLS, SEP
        special[[0, -1]] = True
        words = np.where(special, -1, (words - 1) // 2).astype(np.int32)
    return Encoding(ids, np.zeros_like(ids), special, words)


def sentences(mean: int, count: int, longest: int, layers: int, vocabulary: int) -> list[TokenSequence]:
    """Make sequences that want what an embedding is: the normalised mean of the last layer."""
    feature = ResolvedFeature(Pooling.MEAN, (layers,), normalize=True)
    drawn = enumerate(lengths(mean, count, longest))
    return [TokenSequence(encoding(length, seed, vocabulary), (feature,)) for seed, length in drawn]
