"""Tokens a second of the encoder alone, by mean length and budget, beside torch and the card's matrix rate.

Each is measured as it would be served: Berth with two batches in flight, so that one is packed and copied while the
other is run, torch with one after the other, each waited for. Both go through all texts, in whole rounds.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from bench.batches import Batch, all_batches
from bench.gpu.options import Scale
from bench.gpu.subject import Subject
from bench.gpu.texts import sentences
from bench.gpu.torch_side import WARM_UP, TorchEncoder, matrix_rate, padded_batches, rounds, tokens_per_second
from berth.artifact import Precision
from berth.contract import Encode
from berth.types import TokenSequence

IN_FLIGHT = 2
POOL_TOKENS = 4
"""Texts to go round, in budgets of the largest size."""


@dataclass(slots=True)
class Speed:
    """One mean length."""

    mean: int
    mixed: bool
    tokens: int
    """In all texts that went round."""
    by_budget: dict[int, float] = field(default_factory=dict)
    """Berth's tokens a second."""
    padding: dict[int, float] = field(default_factory=dict)
    """What padding the batches would have had, as a share of their tokens."""
    torch: dict[str, float] = field(default_factory=dict)
    """The best of the budgets each, of: padded, sorted, compiled."""
    torch_error: str | None = None
    share: float = 0.0
    """Of the card's matrix rate, by the operations of the products at the texts' own lengths."""

    @property
    def best(self) -> float:
        """Give Berth's tokens a second at its best budget."""
        return max(self.by_budget.values())

    def as_json(self) -> dict[str, Any]:
        """Give the figures and the best of them."""
        return asdict(self) | {"best": self.best}


def operations(hidden: int, inner: int, layers: int, lengths: Sequence[int]) -> float:
    """Count the operations of an encoder's matrix products on texts of some lengths: two a multiplication."""
    tokens = sum(lengths)
    return (
        2.0 * layers * ((4 * hidden * hidden + 2 * hidden * inner) * tokens + 2 * hidden * sum(n * n for n in lengths))
    )


def scheduled(sequences: Sequence[TokenSequence], budget: int) -> list[Batch]:
    """Have the service's queue make batches of texts that all wait, in requests of 64."""
    return list(all_batches([sequences[start : start + 64] for start in range(0, len(sequences), 64)], budget))


def in_flight(encode: Encode, batches: Sequence[Batch], seconds: float) -> float:
    """Measure tokens a second with two threads, as many as the service's worker has of each priority for a GPU.

    It takes the rounds whole; at the end of the last one a thread may be alone.
    """
    for batch in (*batches[:WARM_UP], max(batches, key=lambda batch: sum(map(len, batch)))):
        encode(batch)
    source, lock = rounds(batches, seconds), threading.Lock()
    started = time.perf_counter()

    def work(_: int) -> int:
        tokens = 0
        while True:
            with lock:
                batch = next(source, None)
            if batch is None:
                return tokens
            encode(batch)
            tokens += sum(map(len, batch))

    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        tokens = sum(threads.map(work, range(IN_FLIGHT)))
        return tokens / (time.perf_counter() - started)


def measure_speed(subject: Subject, precision: Precision, scale: Scale) -> dict[str, Any]:
    """Measure all lengths; gives the matrix rate and a line a length."""
    rate = matrix_rate(scale.matrix, subject.device, scale.seconds)
    manifest, encode = subject.artifact(precision).manifest, subject.encoder(precision)
    model = subject.torch(precision)
    inner, longest = model.config.intermediate_size, min(scale.means[-1], manifest.max_tokens)
    lines = []
    for mean in (mean for mean in scale.means if mean <= longest):
        count = POOL_TOKENS * scale.budgets[-1] // mean
        sequences = sentences(mean, count, longest, manifest.layers, manifest.vocab_size)
        tokens = sum(map(len, sequences))
        line = Speed(mean, mean < longest, tokens)
        for budget in scale.budgets:
            batches = scheduled(sequences, budget)
            area = sum(len(batch) * max(map(len, batch)) for batch in batches)
            line.by_budget[budget] = in_flight(encode, batches, scale.seconds)
            line.padding[budget] = area / tokens - 1
        of_torch(line, model, sequences, subject, scale)
        per_token = (
            operations(manifest.hidden_size, inner, manifest.layers, [len(sequence) for sequence in sequences]) / tokens
        )
        line.share = line.best * per_token / rate
        print(f"{subject.name} {mean}: {line.best:.0f} tokens/s, {line.share:.2f} of the matrix rate", flush=True)
        lines.append(line)
    return {
        "model": subject.name,
        "precision": manifest.precision,
        "matrix_tflops": rate / 1e12,
        "lines": [line.as_json() for line in lines],
    }


def of_torch(line: Speed, model: Any, sequences: Sequence[TokenSequence], subject: Subject, scale: Scale) -> None:
    """Measure torch on the same texts at the same budgets, and keep the best of each kind."""
    shuffled = [sequences[place] for place in np.random.default_rng(0).permutation(len(sequences))]
    kinds = [("padded", model, False), ("sorted", model, True)]
    if subject.on_gpu and (line.mean == 128 or not line.mixed):  # compiling takes a minute
        kinds.append(("compiled", torch.compile(model, dynamic=True), True))
    for name, each, by_length in kinds:
        encode = TorchEncoder(each, subject.device)
        rates = []
        try:
            for budget in scale.budgets[1:]:
                batches = padded_batches(shuffled, budget, by_length=by_length)
                rates.append(tokens_per_second(encode, batches, scale.seconds))
        except Exception as error:  # a compiler that does not work is a finding, not the end of all
            line.torch_error = f"{name}: {type(error).__name__}: {error}"[:500]
        if rates:
            line.torch[name] = max(rates)
