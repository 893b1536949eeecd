"""Calibration: finds how many tokens a batch should hold for this machine to encode this model fastest.

More tokens spread the reading of the weights, and on a GPU the starting of its work, over more of it, until a batch's
numbers fall out of the processor's caches, or out of the memory. Where that is depends on both, so it is measured,
once, and kept in the cache folder.
"""

import hashlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime

from service.errors import OutOfMemoryError
from service.inference.artifact import GRAPH, WEIGHTS, Manifest, Target
from service.inference.runner import Encode
from service.inference.types import Encoding, Feature, Pooling, Unit

BUDGETS: dict[Target, tuple[int, ...]] = {
    "cpu": (64, 128, 192, 256, 384, 512, 768, 1024),
    "cuda": (1024, 2048, 4096, 8192, 16384, 32768, 65536),
}
TEXT_TOKENS = 32
"""Length of the texts that are tried."""
NEARLY = 0.99
"""Of budgets that are nearly as fast as the fastest, the smallest is best: its batches keep others waiting least."""
PATIENCE = 4
"""Times longer than its CPU time that a calibration may take, where other load has the cores."""

logger = logging.getLogger("berth")


def token_rates(encode: Encode, manifest: Manifest, seconds: float) -> dict[int, float]:
    """Measure the tokens a second at each budget, as many budgets as the seconds and the memory suffice for.

    The best of rounds over all budgets, for what disturbs one only makes it slower. On the CPU it is this thread's CPU
    time that counts, on which ONNX Runtime then runs too, so that other load on the machine matters little; the time
    on the clock may be `PATIENCE` times as long. A GPU works outside of the thread, so the time on the clock does.
    """
    unit = unit_of(manifest, min(TEXT_TOKENS, manifest.max_tokens))
    now = time.thread_time if manifest.target == "cpu" else time.perf_counter
    end, last = now() + seconds, time.monotonic() + PATIENCE * seconds
    budgets = list(BUDGETS[manifest.target])
    best: dict[int, float] = {}
    while budgets:
        for budget in budgets.copy():
            start = now()
            try:
                encode([unit] * (budget // len(unit)))
            except OutOfMemoryError:
                budgets = [smaller for smaller in budgets if smaller < budget]
                best = {smaller: best[smaller] for smaller in budgets}
                break
            best[budget] = min(now() - start, best.get(budget, math.inf))
            if now() > end or time.monotonic() > last:
                return {budget: budget / taken for budget, taken in best.items()}
    raise OutOfMemoryError(f"there is no memory for a batch of {BUDGETS[manifest.target][0]} tokens")


def best_budget(rates: Mapping[int, float]) -> int:
    """Choose the smallest budget that is nearly as fast as the fastest.

    Each rate counts twice beside those of the next smaller and larger budget: what they differ by is noise in part.
    """
    measured = [rates[budget] for budget in sorted(rates)]
    padded = [measured[0], *measured, measured[-1]]
    smoothed = [
        (below + 2 * rate + above) / 4 for below, rate, above in zip(padded, measured, padded[2:], strict=False)
    ]
    return min(budget for budget, rate in zip(sorted(rates), smoothed, strict=True) if rate >= NEARLY * max(smoothed))


def unit_of(manifest: Manifest, length: int) -> Unit:
    """Make a unit of some tokens, of which any are as good as others."""
    ids = (np.arange(length, dtype=np.int32) * 7 + 1) % manifest.vocab_size
    feature = Feature(Pooling.MEAN, (manifest.layers,))
    return Unit(Encoding(ids.astype(np.int32), np.zeros(length, dtype=np.int32)), (feature,))


class CalibrationFile:
    """Budgets that were found, by machine, graph and the names of the GPUs that it runs on."""

    def __init__(self, folder: Path, manifest: Manifest, gpus: Sequence[str] = ()) -> None:
        self._path = folder / "calibration.json"
        parts = (
            _processor(),
            os.cpu_count(),
            onnxruntime.__version__,
            manifest.files[GRAPH],
            manifest.files[WEIGHTS],
            *gpus,
        )
        self._key = hashlib.sha256(repr(parts).encode()).hexdigest()

    def read(self) -> int | None:
        """Give the budget that was found before, if any."""
        budget = self._content().get(self._key)
        return budget if isinstance(budget, int) and budget > 0 else None

    def write(self, budget: int) -> None:
        """Keep a budget; a folder that cannot be written is no reason to fail."""
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self._content() | {self._key: budget}), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            logger.warning("the calibration cannot be kept: %s", error)
            with suppress(OSError):
                draft.unlink()

    def _content(self) -> dict[str, object]:
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _processor() -> str:
    """Name the processor's model; Linux alone tells it apart from others of its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "|".join(sorted({line for line in lines if line.startswith(("model name", "model\t", "flags"))}))
