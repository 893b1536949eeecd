"""Whether memory stays bounded: batches of random shape, and what the device and this process hold afterwards."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bench.gpu.options import Scale
from bench.gpu.speed import IN_FLIGHT
from bench.gpu.subject import Subject
from bench.gpu.texts import encoding
from bench.processes import usage
from berth.artifact import Precision
from berth.batching.queue import MAX_PADDING
from berth.types import Pooling, ResolvedFeature, TokenSequence

MOST_GROWTH = 0.01


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB before, after the first batches, and at the end: of the device, of this process."""

    batches: int
    warm_up: int
    device: tuple[float, float, float] | None
    host: tuple[float, float, float]

    @property
    def growth(self) -> float:
        """Give what the device's memory, or without one the process', grew by after the first batches."""
        _, warm, end = self.device or self.host
        return end / warm - 1

    def as_json(self) -> dict[str, Any]:
        """Give the figures and the verdict."""
        return asdict(self) | {"growth": self.growth, "bounded": self.growth < MOST_GROWTH}


def measure_memory(subject: Subject, precision: Precision, scale: Scale) -> Memory:
    """Encode batches of random numbers of random lengths, two in flight."""
    manifest = subject.artifact(precision).manifest
    before = _held(subject)
    encode = subject.encoder(precision)
    longest_text = min(scale.means[-1], manifest.max_tokens)
    texts = [encoding(length, 0, manifest.vocab_size) for length in range(1, longest_text + 1)]
    feature = (ResolvedFeature(Pooling.MEAN, (manifest.layers,)),)
    budget = scale.budgets[len(scale.budgets) // 2 - 1]

    def run(number: int) -> None:
        random = np.random.default_rng(number)
        longest = int(random.integers(1, len(texts) + 1))
        near = int(longest / MAX_PADDING)  # as the queue would have it
        most = budget // longest
        size = int(np.exp(random.uniform(0, np.log(max(most, 1)))))
        chosen = random.integers(near, longest, size=size).tolist()
        encode([TokenSequence(texts[place], feature) for place in chosen])

    warm_up = scale.shapes // 20
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        list(threads.map(run, range(warm_up)))
        warm = _held(subject)
        list(threads.map(run, range(warm_up, scale.shapes)))
    end = _held(subject)
    device = None if before[0] is None or warm[0] is None or end[0] is None else (before[0], warm[0], end[0])
    return Memory(scale.shapes, warm_up, device, (before[1], warm[1], end[1]))


def _held(subject: Subject) -> tuple[float | None, float]:
    """Read the MiB in use on the device, whosever, and by this process."""
    device = None
    if subject.on_gpu:
        free, total = torch.cuda.mem_get_info()
        device = (total - free) / 2**20
    return device, usage(os.getpid()).rss
