"""Warm-up: at the start, run the batches that take the most memory, in as many threads at once as may ever run.

ONNX Runtime keeps the memory of a batch for the next one. Without a warm-up, memory would grow again on the day when
the largest batches first run at the same time. Requests for all layers may still take more.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from berth.artifact import Manifest
from berth.batching.queue import MAX_PADDING
from berth.contract import Backend
from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence

MOST_TOKENS = 1024
"""Of a batch or a text that is warmed up with: one that may be larger hardly ever is."""
START_SECONDS = 10.0
"""That a thread may take to start."""


def warm_up(backend: Backend, manifest: Manifest, tokens: int, times: int) -> None:
    """Encode the largest batch of `tokens` tokens, then the longest text alone, each in `times` threads at once.

    Raises what the backend raises, and `RuntimeError` where a thread cannot be started.
    """
    longest = min(manifest.max_tokens, MOST_TOKENS)
    batches = [largest_batch(manifest, min(tokens, MOST_TOKENS)), [sequence_of(manifest, longest)]]
    together = threading.Barrier(times, timeout=START_SECONDS)

    def run(batch: Sequence[TokenSequence]) -> None:
        together.wait()
        backend.encode(batch)

    with ThreadPoolExecutor(times) as pool:
        for batch in batches:
            list(pool.map(run, [batch] * times))


def largest_batch(manifest: Manifest, tokens: int) -> list[TokenSequence]:
    """Make the batch whose attention takes the most memory, sequences x longest²; a text alone has none to pad."""
    padded = int(MAX_PADDING * tokens)
    sizes = [(count, min(manifest.max_tokens, max(1, padded // count))) for count in range(2, max(3, tokens))]
    count, longest = max(sizes, key=lambda size: size[0] * size[1] ** 2)
    length, longer = divmod(max(count - 1, tokens - longest), count - 1)
    others = [length + 1] * longer + [length] * (count - 1 - longer)
    return [sequence_of(manifest, each) for each in [longest, *others]]


def sequence_of(manifest: Manifest, length: int) -> TokenSequence:
    """Make a sequence of some tokens, of which any are as good as others."""
    ids = (np.arange(length, dtype=np.int32) * 7 + 1) % manifest.vocab_size
    feature = ResolvedFeature(Pooling.MEAN, (manifest.layers,))
    return TokenSequence(Encoding(ids.astype(np.int32), np.zeros(length, dtype=np.int32)), (feature,))
