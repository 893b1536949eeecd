"""Calibration: finds how this machine encodes this model fastest, once, and keeps it in the cache folder.

How many tokens a batch should hold: more spread the reading of the weights, and on a GPU the starting of its work, over
more of it, until a batch's numbers fall out of the processor's caches, or out of the memory. And whether a short text
alone has its graph: it is a third faster or slower than that for batches, depending on the kernels of the processor.
"""

import hashlib
import logging
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter, ValidationError

from service.errors import OutOfMemoryError
from service.inference.artifact import GRAPH, WEIGHTS, Manifest, Target
from service.inference.encoder import CpuEncoder
from service.inference.runner import Encode
from service.inference.runtime import ort
from service.inference.types import Encoding, Feature, Pooling, Unit

BUDGETS: dict[Target, tuple[int, ...]] = {
    "cpu": (128, 192, 256, 384, 512, 768),
    "cuda": (1024, 2048, 4096, 8192, 16384, 32768, 65536),
}
USUAL_BUDGET: dict[Target, int] = {"cpu": 384, "cuda": 8192}
"""What is best on most machines, and taken before it is known what is best here."""
TEXT_TOKENS = 32
"""Length of the texts that are tried."""
NEARLY = 0.97
"""Of budgets that are nearly as fast as the fastest, the nearest to the usual one is best: a machine whose cores are
shared tells a rate in a second to a few per cent only."""
SHORT_TEXTS = (10, 16, 20, 24, 32)
"""Lengths of the texts on which the graph for short ones is tried."""
PASSES = 3
"""Times that one way goes over them before the other has its turn. A graph's first eight runs or so find its
weights only partly in the caches; in a service that goes by this graph alone every run is as fast as the last ones."""
SHORT_SECONDS = 0.25
"""CPU time of that trial, of which one turn each is the least."""
GAIN = 1.1
"""Times faster that it must be, at least: it costs a second copy of the layers' weights, and beside other work on its
core two ways that are level mostly come out up to a tenth apart."""
METHOD = 2
"""Of all the above; what was found by an older one is not read."""
PATIENCE = 4
"""Times longer than its CPU time that a calibration may take, where other load has the cores."""

logger = logging.getLogger("berth")


class Calibration(BaseModel):
    """What is fastest here."""

    model_config = ConfigDict(frozen=True)

    max_batch_tokens: PositiveInt
    short_graph: bool
    """Whether the graph for short texts, where the artifact has one, is faster than that for batches."""


_CALIBRATIONS = TypeAdapter(dict[str, Calibration])


def token_rates(encode: Encode, manifest: Manifest, seconds: float) -> dict[int, float]:
    """Measure the tokens a second at each budget, or only at the usual one where the seconds do not suffice for all.

    The best of rounds over all budgets, the usual one first, for what disturbs one only makes it slower. On the CPU it
    is this thread's CPU time that counts, on which ONNX Runtime then runs too, so that other load on the machine
    matters little; the time on the clock may be `PATIENCE` times as long. A GPU works outside of the thread, so the
    time on the clock does.
    """
    unit = unit_of(manifest, min(TEXT_TOKENS, manifest.max_tokens))
    now = time.thread_time if manifest.target == "cpu" else time.perf_counter
    end, last = now() + seconds, time.monotonic() + PATIENCE * seconds
    usual = USUAL_BUDGET[manifest.target]
    budgets = sorted(BUDGETS[manifest.target], key=lambda budget: _distance(budget, usual))
    best: dict[int, float] = {}
    while budgets:
        for budget in budgets.copy():
            start = now()
            try:
                encode([unit] * (budget // len(unit)))
            except OutOfMemoryError:
                budgets = [smaller for smaller in budgets if smaller < budget]
                best = {smaller: taken for smaller, taken in best.items() if smaller in budgets}
                break
            best[budget] = min(now() - start, best.get(budget, math.inf))
            if now() > end or time.monotonic() > last:
                compared = budgets if len(best) == len(budgets) else budgets[:1]  # which was the first of them
                return {budget: budget / best[budget] for budget in compared}
    raise OutOfMemoryError(f"there is no memory for a batch of {BUDGETS[manifest.target][0]} tokens")


def best_budget(rates: Mapping[int, float], usual: int) -> int:
    """Choose of the budgets that are nearly as fast as the fastest the one that is nearest to the usual one.

    Each rate counts twice beside those of the next smaller and larger budget: what they differ by is noise in part.
    """
    budgets = sorted(rates)
    measured = [rates[budget] for budget in budgets]
    padded = [measured[0], *measured, measured[-1]]
    smoothed = [
        (below + 2 * rate + above) / 4 for below, rate, above in zip(padded, measured, padded[2:], strict=False)
    ]
    nearly = [budget for budget, rate in zip(budgets, smoothed, strict=True) if rate >= NEARLY * max(smoothed)]
    return min(nearly, key=lambda budget: _distance(budget, usual))


def _distance(budget: int, usual: int) -> float:
    return abs(math.log(budget / usual))


def short_graph_pays(encoder: CpuEncoder, manifest: Manifest) -> bool:
    """Tell whether there is a graph for short texts, and a text alone is encoded faster by it."""
    others = encoder.without_short_graph()
    return encoder.has_short_graph and is_faster(encoder, others, manifest, SHORT_SECONDS)


def is_faster(encode: Encode, other: Encode, manifest: Manifest, seconds: float) -> bool:
    """Tell whether one way to encode a short text alone takes clearly less of this thread's CPU time than another.

    They take turns, at least one each, and the best time of each text counts.
    """
    units = [unit_of(manifest, length) for length in SHORT_TEXTS if length <= manifest.max_tokens]
    best = {way: [math.inf] * len(units) for way in (encode, other)}
    end, last = time.thread_time() + seconds, time.monotonic() + PATIENCE * seconds
    while True:
        for way, times in best.items():
            for number, unit in [*enumerate(units)] * PASSES:
                start = time.thread_time()
                way([unit])
                times[number] = min(times[number], time.thread_time() - start)
        if time.thread_time() > end or time.monotonic() > last:
            return GAIN * sum(best[encode]) < sum(best[other])


def unit_of(manifest: Manifest, length: int) -> Unit:
    """Make a unit of some tokens, of which any are as good as others."""
    ids = (np.arange(length, dtype=np.int32) * 7 + 1) % manifest.vocab_size
    feature = Feature(Pooling.MEAN, (manifest.layers,))
    return Unit(Encoding(ids.astype(np.int32), np.zeros(length, dtype=np.int32)), (feature,))


class CalibrationFile:
    """What was found, by machine, graph and the names of the GPUs that it runs on."""

    def __init__(self, folder: Path, manifest: Manifest, gpus: Sequence[str] = ()) -> None:
        self._path = folder / "calibration.json"
        parts = (
            METHOD,
            _processor(),
            os.cpu_count(),
            ort.__version__,
            manifest.files[GRAPH],
            manifest.files[WEIGHTS],
            *gpus,
        )
        self._key = hashlib.sha256(repr(parts).encode()).hexdigest()

    def read(self) -> Calibration | None:
        """Give what was found before, if anything."""
        return self._content().get(self._key)

    def write(self, found: Calibration) -> None:
        """Keep what was found; a folder that cannot be written is no reason to fail."""
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(_CALIBRATIONS.dump_json(self._content() | {self._key: found}))
            draft.replace(self._path)
        except OSError as error:
            logger.warning("the calibration cannot be kept: %s", error)
            with suppress(OSError):
                draft.unlink()

    def _content(self) -> dict[str, Calibration]:
        try:
            return _CALIBRATIONS.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return {}


def _processor() -> str:
    """Name the processor's model; Linux alone tells it apart from others of its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "|".join(sorted({line for line in lines if line.startswith(("model name", "model\t", "flags"))}))
