"""torch on the same texts: batches padded as they come or sorted by length first, with SDPA, or compiled."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from bench.batches import Batch
from bench.gpu.subject import synchronize
from berth.types import Float32Array, TokenSequence

WARM_UP = 3


def matrix_rate(size: int, device: str, seconds: float) -> float:
    """Measure the operations a second of a large product, of random numbers: fp16 on a GPU, fp32 on the CPU."""
    kind = torch.float16 if device == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    wait = synchronize(device)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < WARM_UP + 10 or time.perf_counter() < end:
        wait()
        started = time.perf_counter()
        a @ b
        wait()
        times.append(time.perf_counter() - started)
    return float(2 * size**3 / np.median(times[WARM_UP:]))


def padded_batches(sequences: Sequence[TokenSequence], budget: int, *, by_length: bool) -> list[Batch]:
    """Fill batches whose padded area is at most `budget` tokens, in the texts' order or in that of their lengths."""
    batches: list[Batch] = [[]]
    longest = 0
    for sequence in sorted(sequences, key=len) if by_length else sequences:
        longest = max(longest, len(sequence))
        if batches[-1] and (len(batches[-1]) + 1) * longest > budget:
            batches.append([])
            longest = len(sequence)
        batches[-1].append(sequence)
    return batches


class TorchEncoder:
    """A torch model as it would be served: ids in, normalised means out, padding masked."""

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self._device = device

    def __call__(self, sequences: Batch) -> Float32Array:
        """Encode a batch; gives [sequences, hidden]."""
        longest = max(map(len, sequences))
        ids = np.zeros((len(sequences), longest), dtype=np.int64)
        mask = np.zeros((len(sequences), longest), dtype=np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence.encoding.ids
            mask[row, : len(sequence)] = 1
        with torch.inference_mode():
            on_device = torch.from_numpy(ids).to(self._device)
            kept = torch.from_numpy(mask).to(self._device)
            # Without a mask SDPA has its fastest kernel, so where nothing is padded there is none.
            output = self._model(input_ids=on_device, attention_mask=None if mask.all() else kept)
            states = output.last_hidden_state.float() * kept[:, :, None]
            means = states.sum(dim=1) / kept.sum(dim=1, keepdim=True)
            return np.asarray(torch.nn.functional.normalize(means, dim=1).cpu().numpy())


def rounds(batches: Sequence[Batch], seconds: float) -> Iterator[Batch]:
    """Yield the batches, again and again until the seconds are over; whole rounds, as their lengths may ascend."""
    end = time.perf_counter() + seconds
    yield from batches
    while time.perf_counter() < end:
        yield from batches


def tokens_per_second(encode: Callable[[Batch], object], batches: Sequence[Batch], seconds: float) -> float:
    """Measure the texts' own tokens a second, padding not counted, one batch after the other, over whole rounds."""
    for batch in islice(cycle(batches), WARM_UP):
        encode(batch)
    tokens, started = 0, time.perf_counter()
    for batch in rounds(batches, seconds):
        encode(batch)
        tokens += sum(map(len, batch))
    return tokens / (time.perf_counter() - started)
