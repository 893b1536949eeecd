"""The rehearsal: at the start, the batches that take the most memory, as many at once as may ever be under way.

ONNX Runtime keeps the memory that a batch needed for the next one. Left to chance, the largest ones meet for the first
time hours later, and memory that had been level for so long grows once more.
"""

from concurrent.futures import ThreadPoolExecutor

from service.inference.artifact import Manifest
from service.inference.calibration import BUDGETS, unit_of
from service.inference.runner import Encode
from service.inference.scheduler import MAX_PADDING
from service.inference.types import Unit

MOST_TOKENS = max(BUDGETS["cpu"])
"""A batch may be bounded to more than ever comes together."""


def rehearse(encode: Encode, manifest: Manifest, tokens: int, threads: int) -> None:
    """Encode the largest batch of so many tokens, and the longest text, in each of so many threads at once.

    Raises what the encoder raises.
    """
    largest = largest_batch(manifest, min(tokens, MOST_TOKENS))
    with ThreadPoolExecutor(threads) as pool:
        for batch in largest, [unit_of(manifest, manifest.max_tokens)]:
            list(pool.map(encode, [batch] * threads))


def largest_batch(manifest: Manifest, tokens: int) -> list[Unit]:
    """Make the batch whose attention takes the most memory, units x longest². A text alone has none to pad."""
    padded = int(MAX_PADDING * tokens)
    sizes = [(units, min(manifest.max_tokens, max(1, padded // units))) for units in range(2, max(3, tokens))]
    units, longest = max(sizes, key=lambda size: size[0] * size[1] ** 2)
    other = max(1, (tokens - longest) // (units - 1))
    return [unit_of(manifest, length) for length in [longest, *[other] * (units - 1)]]
