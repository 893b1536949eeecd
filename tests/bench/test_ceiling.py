"""The floor's graph, and the ceiling of the tiny model."""

from pathlib import Path

import pytest

from bench.ceiling import BUDGETS, Ceiling, measure_ceiling
from bench.floor import Floor, Sizes, sizes_of
from bench.model import load_model
from bench.workloads import SHAPES, Workload


def test_floor_has_the_encoders_sizes_and_runs(tiny_artifact: Path) -> None:
    sizes = sizes_of(str(tiny_artifact / "model.onnx"), hidden=60, heads=5, layers=3)
    assert sizes == Sizes(hidden=60, heads=5, intermediate=100, layers=3)
    assert Floor(sizes).measure(Ceiling(256, 5.3, 1.0, 1.0, [(4, 5), (7,)]), seconds=0.01) > 0


def test_ceiling_is_of_batches_within_the_best_budget(tiny_artifact: Path) -> None:
    workload = Workload(SHAPES["w2"], ["a text", "of the world", "hello to the world"] * 20)
    ceiling = measure_ceiling(load_model(tiny_artifact), workload, seconds=0.02)
    assert ceiling.budget in BUDGETS
    assert all(sum(batch) <= ceiling.budget or len(batch) == 1 for batch in ceiling.batches)
    assert ceiling.text_tokens == pytest.approx((4 + 5 + 6) / 3)
    assert ceiling.cpu_ms_per_text > 0
