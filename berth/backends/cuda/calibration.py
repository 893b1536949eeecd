"""Calibration: finds how many tokens a batch should hold on this GPU, once, and keeps it in the cache folder.

More tokens spread the reading of the weights and the start of the GPU's work over more of it, until there is no memory
for a batch's numbers. On the CPU nothing is measured: `berth.backends.cpu.encoder.MAX_BATCH_TOKENS`.
"""

import hashlib
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort
from pydantic import PositiveInt, TypeAdapter, ValidationError

from berth.artifact import GRAPH, WEIGHTS, Manifest
from berth.backends.warmup import sequence_of
from berth.contract import Backend
from berth.errors import OutOfMemoryError

BUDGETS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
USUAL_BUDGET = 8192
"""Taken before it is known what is best here."""
TEXT_TOKENS = 32
"""Length of the texts that are tried."""
NEARLY = 0.97
"""Of budgets that are nearly as fast as the fastest, the nearest to the usual one is best: a machine whose cores are
shared tells a rate in a second to a few per cent only."""
SECONDS = 3.0
METHOD = 4
"""Of all the above; what was found by an older one is not read."""

logger = logging.getLogger("berth")

_BUDGETS = TypeAdapter(dict[str, PositiveInt])


def token_rates(
    backend: Backend, manifest: Manifest, seconds: float = SECONDS, budgets: Sequence[int] = BUDGETS
) -> dict[int, float]:
    """Measure the tokens a second at each budget, or only at the usual one where the seconds do not suffice for all.

    The best of rounds over all budgets counts, the usual one first, for what disturbs one only makes it slower.
    Raises `OutOfMemoryError` where there is no memory for the smallest, and what the backend raises.
    """
    sequence = sequence_of(manifest, min(TEXT_TOKENS, manifest.max_tokens))
    end = time.perf_counter() + seconds
    left = sorted(budgets, key=_distance)
    best: dict[int, float] = {}
    while left:
        for budget in left.copy():
            start = time.perf_counter()
            try:
                backend.encode([sequence] * (budget // len(sequence)))
            except OutOfMemoryError:
                left = [smaller for smaller in left if smaller < budget]
                best = {smaller: taken for smaller, taken in best.items() if smaller in left}
                break
            best[budget] = min(time.perf_counter() - start, best.get(budget, math.inf))
            if time.perf_counter() > end:
                compared = left if len(best) == len(left) else left[:1]  # which was the first of them
                return {budget: budget / best[budget] for budget in compared}
    raise OutOfMemoryError(f"there is no memory for a batch of {min(budgets)} tokens")


def best_budget(rates: Mapping[int, float]) -> int:
    """Choose of the budgets that are nearly as fast as the fastest the one that is nearest to the usual one."""
    fastest = max(rates.values())
    return min((budget for budget, rate in rates.items() if rate >= NEARLY * fastest), key=_distance)


def _distance(budget: int) -> float:
    return abs(math.log(budget / USUAL_BUDGET))


class CalibrationFile:
    """What was found, by graph, ONNX Runtime and the names of the GPUs that it runs on."""

    def __init__(self, folder: Path, manifest: Manifest, gpus: Sequence[str]) -> None:
        self._path = folder / "calibration.json"
        parts = (METHOD, ort.__version__, manifest.files[GRAPH], manifest.files[WEIGHTS], *gpus)
        self._key = hashlib.sha256(repr(parts).encode()).hexdigest()

    def read(self) -> int | None:
        """Give the budget that was found before, if any."""
        return self._content().get(self._key)

    def write(self, budget: int) -> None:
        """Keep a budget; a folder that cannot be written is no reason to fail."""
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(_BUDGETS.dump_json(self._content() | {self._key: budget}))
            draft.replace(self._path)
        except OSError as error:
            logger.warning("the calibration cannot be kept: %s", error)
            with suppress(OSError):
                draft.unlink()

    def _content(self) -> dict[str, int]:
        try:
            return _BUDGETS.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return {}
