"""What an encoder is to the rest of Berth, and one without a model."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from berth.types import Float32Array, Pooling, TokenSequence, Vectors

Encode = Callable[[Sequence[TokenSequence]], list[Vectors]]
"""A batch of sequences in, of each one array a feature out, in the order of its features."""


class Backend(Protocol):
    """An encoder on one device; its methods may be called from several threads at once."""

    max_batch_tokens: int
    """Tokens of a batch that suit the device; a longer sequence is a batch alone."""

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Encode a batch of at least one sequence; gives of each one array a feature, in the order of its features.

        An array is [width], or [tokens, width] for `none` and [words, width] for `words`. Raises `EncoderError`;
        `OutOfMemoryError` where a smaller batch may fit, `DeviceLostError` where no batch will run any more.
        """

    def close(self) -> None:
        """Let go of the model's memory; nothing is encoded after it."""


class FakeEncoder:
    """A backend without a model: vectors that depend on a text's ids alone, after a pause.

    It stands in for a device where the rest is tested or measured: `seconds_per_token` is slept for each token of a
    batch, as long as a device would compute and with the interpreter's lock released, as ONNX Runtime does. `answer`
    takes the place of the vectors.
    """

    def __init__(
        self,
        answer: Encode | None = None,
        *,
        width: int = 8,
        seconds_per_token: float = 0.0,
        max_batch_tokens: int = 384,
    ) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.closed = False
        self._answer = answer
        self._width = width
        self._seconds_per_token = seconds_per_token

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Sleep, and give rows that are the same for the same ids, whatever is beside them in the batch."""
        if self._seconds_per_token:
            time.sleep(self._seconds_per_token * sum(map(len, sequences)))
        if self._answer is not None:
            return self._answer(sequences)
        return [self._vectors(sequence) for sequence in sequences]

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _vectors(self, sequence: TokenSequence) -> Vectors:
        ids = sequence.encoding.ids
        vectors: Vectors = []
        for feature in sequence.features:
            columns = np.arange(1, feature.width(self._width) + 1, dtype=np.float32)
            rows: Float32Array = np.cos(np.outer(ids, columns), dtype=np.float32)
            match feature.pooling:
                case Pooling.NONE if feature.exclude_special and sequence.encoding.special is not None:
                    vectors.append(rows[~sequence.encoding.special])
                case Pooling.NONE:
                    vectors.append(rows)
                case Pooling.WORDS:
                    words = sequence.encoding.words
                    vectors.append(rows[: 0 if words is None else len(np.unique(words[words >= 0]))])
                case _:
                    vectors.append(np.asarray(rows.mean(axis=0)))
        return vectors
