"""One run of a batch in an encoder, repeated in halves where it fails."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from berth.contract import Backend
from berth.errors import DeviceLostError, EncoderError, OutOfMemoryError
from berth.types import TokenSequence, Vectors

Result = Vectors | EncoderError

logger = logging.getLogger("berth")


@dataclass(slots=True)
class BatchRun:
    """A batch: what it held, when it began, how long it took, and what became of it."""

    sequences: int = 0
    tokens: int = 0
    errors: int = 0
    """Sequences that have an error for their result."""
    held: float = 0.0
    """Seconds for which bulk's share held it back before."""
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    out_of_memory: int = 0
    """Runs of it, or of parts of it, for which the device had no memory."""
    most_tokens: float = math.inf
    """That the next batches should have, because the device had no memory for as many again."""
    lost: bool = False
    """Whether its device has failed for good."""

    def encode(self, backend: Backend, sequences: Sequence[TokenSequence]) -> list[Result]:
        """Encode a batch; gives a result a sequence, and raises nothing.

        Where the batch fails it is halved and tried again, so that only a text that fails alone has an error.
        """
        self.sequences, self.tokens = len(sequences), sum(map(len, sequences))
        results = self._encode(backend, sequences)
        self.errors = sum(isinstance(result, EncoderError) for result in results)
        self.seconds = time.perf_counter() - self.started
        return results

    def _encode(self, backend: Backend, sequences: Sequence[TokenSequence]) -> list[Result]:
        try:
            results: list[Result] = list(backend.encode(sequences))
            if len(results) != len(sequences):
                raise EncoderError(f"{len(results)} results for {len(sequences)} sequences")
            return results
        except BaseException as error:  # whatever it is, the encoder's thread must go on
            if isinstance(error, OutOfMemoryError):
                self.out_of_memory += 1
                self.most_tokens = min(self.most_tokens, sum(map(len, sequences)) // 2)
            if isinstance(error, DeviceLostError):
                self.lost = True
                logger.error("%s", error)
                return [EncoderError("the encoder's device has failed")] * len(sequences)
            if len(sequences) == 1:
                logger.exception("the encoder failed on a text of %d tokens", len(sequences[0]))
                return [EncoderError("the encoder failed on this text; the log says why")]
        half = len(sequences) // 2
        return [
            *self._encode(backend, sequences[:half]),
            *self._encode(backend, sequences[half:]),
        ]
