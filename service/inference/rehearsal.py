"""The rehearsal: at the start, the batches that take the most memory, begun at once as often as they may ever be.

ONNX Runtime keeps the memory that a batch needed for the next one. Left to chance, the largest ones meet for the first
time some time later, and memory that had been level grows once more. A request for all layers takes more yet.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.inference.artifact import SHORT_LENGTHS, Manifest
from service.inference.calibration import BUDGETS, unit_of
from service.inference.runner import Encode
from service.inference.scheduler import MAX_PADDING
from service.inference.types import Unit

MOST_TOKENS = max(BUDGETS["cpu"])
"""Of a batch that is rehearsed: one that may be larger hardly ever is."""
START_SECONDS = 10.0
"""That a thread may take to start."""


def rehearse(encode: Encode, manifest: Manifest, tokens: int, times: int) -> None:
    """Encode the largest batch of so many tokens, the longest text and the longest short one, begun so often at once.

    Raises what the encoder raises.
    """
    texts = (manifest.max_tokens, min(manifest.max_tokens, SHORT_LENGTHS.stop - 1))
    batches = [largest_batch(manifest, min(tokens, MOST_TOKENS)), *([unit_of(manifest, length)] for length in texts)]
    together = threading.Barrier(times, timeout=START_SECONDS)

    def run(batch: Sequence[Unit]) -> None:
        together.wait()
        encode(batch)

    with ThreadPoolExecutor(times) as pool:
        for batch in batches:
            list(pool.map(run, [batch] * times))


def largest_batch(manifest: Manifest, tokens: int) -> list[Unit]:
    """Make the batch whose attention takes the most memory, units x longest²; a text alone has none to pad."""
    padded = int(MAX_PADDING * tokens)
    sizes = [(units, min(manifest.max_tokens, max(1, padded // units))) for units in range(2, max(3, tokens))]
    units, longest = max(sizes, key=lambda size: size[0] * size[1] ** 2)
    length, longer = divmod(max(units - 1, tokens - longest), units - 1)
    others = [length + 1] * longer + [length] * (units - 1 - longer)
    return [unit_of(manifest, each) for each in [longest, *others]]
