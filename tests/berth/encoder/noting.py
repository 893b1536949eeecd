"""A backend that notes what it is asked, and texts to ask it with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from berth.contract import FakeEncoder
from berth.encoder import Encoder
from berth.types import Float32Array, TokenSequence, Vectors

WIDTH = 384
SURROGATE = "\ud83d"
"""Half of an emoji: a string to Python, and no text to anything else."""
WORDS = ["harbour", "ship", "rope", "tide", "crane", "quay", "cargo", "pilot", "buoy", "anchor"]
LONG = " ".join(str(number % 10) for number in range(300))
"""300 tokens, of which 254 fit: the model takes 256, [CLS] and [SEP] too."""
PATIENCE = 20.0
"""Seconds after which a thread counts as forgotten."""

MakeEncoder = Callable[..., Encoder]


class Noting(FakeEncoder):
    """A backend without a model that notes its batches."""

    def __init__(self, **options: Any) -> None:
        super().__init__(width=WIDTH, **options)
        self.batches: list[list[TokenSequence]] = []

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        self.batches.append(list(sequences))
        return super().encode(sequences)

    @property
    def lengths(self) -> list[list[int]]:
        """The tokens of each sequence of each batch."""
        return [[len(sequence) for sequence in batch] for batch in self.batches]

    @property
    def texts(self) -> list[list[int]]:
        """The ids of all sequences, in the order in which they were encoded."""
        return [sequence.encoding.ids.tolist() for batch in self.batches for sequence in batch]


def sentences(count: int, longest: int = 30) -> list[str]:
    random = np.random.default_rng(2)
    return [f"{number} " + " ".join(random.choice(WORDS, size=random.integers(1, longest))) for number in range(count)]


def alone(encoder: Encoder, texts: Sequence[str]) -> Float32Array:
    return np.stack([encoder.encode(text) for text in texts])
