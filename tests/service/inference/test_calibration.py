"""How many tokens a batch should hold."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.errors import OutOfMemoryError
from service.inference.artifact import Artifact, Manifest
from service.inference.calibration import BUDGETS, CalibrationFile, best_budget, token_rates
from service.inference.types import Unit, Vectors


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({64: 60.0, 128: 90.0, 192: 100.0, 256: 90.0, 384: 80.0}, 192),
        ({64: 98.1, 128: 100.0}, 64),
        ({64: 97.9, 128: 100.0}, 128),
        ({64: 70.0, 128: 100.5, 192: 90.0, 256: 99.0, 384: 100.0, 512: 99.0}, 384),
        ({64: 1.0}, 64),
    ],
)
def test_smallest_that_is_nearly_the_fastest_is_best(rates: dict[int, float], best: int) -> None:
    assert best_budget(rates) == best


def test_each_budget_is_tried_with_as_many_tokens(artifact: Artifact) -> None:
    seen: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        seen.append(sum(map(len, units)))
        for _ in range(1000):  # takes CPU time, for a rate is tokens over it
            pass
        return [[] for _ in units]

    rates = token_rates(encode, artifact.manifest, seconds=0.05)
    assert tuple(rates) == tuple(seen[: len(BUDGETS["cpu"])]) == BUDGETS["cpu"]


def test_slow_machine_tries_what_there_is_time_for(artifact: Artifact) -> None:
    def encode(units: Sequence[Unit]) -> list[Vectors]:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        return [[] for _ in units]

    assert tuple(token_rates(encode, artifact.manifest, seconds=0)) == BUDGETS["cpu"][:1]


def test_budget_is_kept_for_its_graph_alone(artifact: Artifact, tmp_path: Path) -> None:
    other = artifact.manifest.model_copy(update={"files": dict.fromkeys(artifact.manifest.files, "0")})
    CalibrationFile(tmp_path / "new", artifact.manifest).write(384)
    assert CalibrationFile(tmp_path / "new", artifact.manifest).read() == 384
    assert CalibrationFile(tmp_path / "new", other).read() is None
    CalibrationFile(tmp_path / "new", other).write(64)
    assert CalibrationFile(tmp_path / "new", artifact.manifest).read() == 384


@pytest.mark.parametrize("content", [b"", b"[]", b"not JSON", b"{}"])
def test_damaged_file_is_as_good_as_none(artifact: Artifact, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "calibration.json").write_bytes(content)
    file = CalibrationFile(tmp_path, artifact.manifest)
    assert file.read() is None
    file.write(128)
    assert file.read() == 128


def test_folder_that_cannot_be_written_is_no_failure(artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    CalibrationFile(Path("/proc/nowhere"), artifact.manifest).write(128)
    assert "the calibration cannot be kept" in caplog.text


def test_what_disturbs_a_round_does_not_count(artifact: Artifact) -> None:
    """The first round takes a thousand times as long for each budget but the largest."""
    seen: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        seen.append(sum(map(len, units)))
        slow = len(seen) < len(BUDGETS["cpu"])
        end = time.thread_time() + 1e-5 * (1000 if slow else 1)
        while time.thread_time() < end:
            pass
        return [[] for _ in units]

    assert best_budget(token_rates(encode, artifact.manifest, seconds=0.3)) == BUDGETS["cpu"][-1]
    assert len(seen) > 2 * len(BUDGETS["cpu"])


@pytest.fixture
def on_gpu(artifact: Artifact) -> Manifest:
    return artifact.manifest.model_copy(update={"target": "cuda"})


def test_gpu_is_measured_by_the_clock(on_gpu: Manifest) -> None:
    """An encoder that waits for a GPU takes no CPU time of its thread."""
    seen: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        seen.append(sum(map(len, units)))
        time.sleep(0.02 if len(seen) <= len(BUDGETS["cuda"]) else 0.001)
        return [[] for _ in units]

    rates = token_rates(encode, on_gpu, seconds=0.3)
    assert tuple(rates) == BUDGETS["cuda"]
    assert all(budget / rate < 0.02 for budget, rate in rates.items())


def test_budgets_end_where_the_memory_does(on_gpu: Manifest) -> None:
    seen: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        seen.append(sum(map(len, units)))
        if seen[-1] > 4096:
            raise OutOfMemoryError("full")
        return [[] for _ in units]

    assert tuple(token_rates(encode, on_gpu, seconds=0.05)) == (1024, 2048, 4096)
    assert seen.count(8192) == 1


def test_no_memory_at_all_is_an_error(on_gpu: Manifest) -> None:
    def encode(_: Sequence[Unit]) -> list[Vectors]:
        raise OutOfMemoryError("full")

    with pytest.raises(OutOfMemoryError, match="a batch of 1024 tokens"):
        token_rates(encode, on_gpu, seconds=0.05)


def test_budget_is_kept_for_its_gpus_alone(artifact: Artifact, tmp_path: Path) -> None:
    CalibrationFile(tmp_path, artifact.manifest, ["NVIDIA H200"]).write(16384)
    assert CalibrationFile(tmp_path, artifact.manifest, ["NVIDIA H200"]).read() == 16384
    assert CalibrationFile(tmp_path, artifact.manifest, ["NVIDIA L4"]).read() is None
    assert CalibrationFile(tmp_path, artifact.manifest).read() is None
