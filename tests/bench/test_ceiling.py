"""The ceiling's batches and the floor's graph."""

from pathlib import Path

import numpy as np

from bench.ceiling import Ceiling, batches
from bench.floor import Floor, Sizes, sizes_of
from service.inference.types import Encoding, Feature, Pooling, Unit


def unit(length: int) -> Unit:
    ids = np.ones(length, dtype=np.int32)
    return Unit(Encoding(ids, np.zeros_like(ids)), (Feature(Pooling.MEAN, (1,)),))


def test_batches_keep_within_the_budget_and_leave_no_text_out() -> None:
    requests = [[unit(length) for length in (3, 20, 4)], [unit(5)], [unit(21), unit(9)]]
    texts = [one for request in requests for one in request]
    source = batches(requests, concurrency=2, budget=24)
    seen: list[Unit] = []
    while len(seen) < 60:
        batch = next(source)
        assert sum(map(len, batch)) <= 24
        seen += batch
    for one in texts:
        assert abs(sum(each is one for each in seen) - 10) <= 2


def test_floor_has_the_encoders_sizes_and_runs(tiny_artifact: Path) -> None:
    sizes = sizes_of(str(tiny_artifact / "model.onnx"), hidden=60, heads=5, layers=3)
    assert sizes == Sizes(hidden=60, heads=5, intermediate=100, layers=3)
    assert Floor(sizes).measure(Ceiling(256, 5.3, 1.0, 1.0, [(4, 5), (7,)]), seconds=0.01) > 0
