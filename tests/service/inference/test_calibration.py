"""How many tokens a batch should hold, and by which graph short texts go."""

import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.errors import OutOfMemoryError
from service.inference import calibration
from service.inference.artifact import Artifact, Manifest
from service.inference.calibration import (
    BUDGETS,
    PASSES,
    SHORT_TEXTS,
    USUAL_BUDGET,
    Calibration,
    CalibrationFile,
    best_budget,
    is_faster,
    short_graph_pays,
    token_rates,
)
from service.inference.encoder import CpuEncoder
from service.inference.runner import Encode
from service.inference.types import Unit, Vectors


def work(seconds: float) -> None:
    """Take so much of this thread's CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({128: 98.0, 256: 98.0, 384: 98.0, 512: 100.0}, 384),  # nearly as fast, and what is usual
        ({128: 100.0, 192: 98.0, 256: 92.0, 384: 85.0}, 192),  # the nearest of those that are nearly as fast
        ({384: 80.0, 512: 90.0, 768: 100.0}, 768),
        ({128: 70.0, 192: 100.0, 256: 85.0, 384: 90.0, 512: 90.0}, 384),  # one rate among lower ones is a disturbance
        ({256: 1.0}, 256),
    ],
)
def test_of_those_that_are_nearly_the_fastest_the_usual_is_best(rates: dict[int, float], best: int) -> None:
    assert best_budget(rates, 384) == best


def test_each_budget_is_tried_with_as_many_tokens(artifact: Artifact) -> None:
    seen: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        seen.append(sum(map(len, units)))
        for _ in range(1000):  # takes CPU time, for a rate is tokens over it
            pass
        return [[] for _ in units]

    rates = token_rates(encode, artifact.manifest, seconds=0.05)
    assert list(rates) == seen[: len(rates)]
    assert sorted(rates) == list(BUDGETS["cpu"])


def test_slow_machine_tries_what_there_is_time_for(artifact: Artifact) -> None:
    def encode(units: Sequence[Unit]) -> list[Vectors]:
        work(0.002)
        return [[] for _ in units]

    assert list(token_rates(encode, artifact.manifest, seconds=0)) == [USUAL_BUDGET["cpu"]]


TURN = PASSES * len(SHORT_TEXTS)


@pytest.mark.parametrize("slower", [0, 1])
def test_the_faster_way_is_found_whatever_disturbs_a_turn(artifact: Artifact, slower: int) -> None:
    seen: list[int] = []

    def way(number: int) -> Encode:
        runs = count()

        def encode(units: Sequence[Unit]) -> list[Vectors]:
            seen.append(len(units[0]))
            usual = 2e-4 if number == slower else 1e-4
            work(1e-3 if number != slower and next(runs) < TURN else usual)
            return [[] for _ in units]

        return encode

    assert is_faster(way(0), way(1), artifact.manifest, seconds=0.1) is (slower == 1)
    assert set(seen) == set(SHORT_TEXTS)


def test_the_faster_way_is_faster_by_warm_caches(artifact: Artifact) -> None:
    """Whoever begins anew is far slower at first, the one and the other: that does not make them equal."""
    last: list[int] = []

    def way(number: int, seconds: float) -> Encode:
        def encode(units: Sequence[Unit]) -> list[Vectors]:
            cold = set(last[-8:]) != {number}
            last.append(number)
            work(seconds + 2e-3 * cold)
            return [[] for _ in units]

        return encode

    assert is_faster(way(0, 1e-4), way(1, 2e-4), artifact.manifest, seconds=0.15)


@pytest.mark.parametrize("faster", [True, False])
def test_the_graph_for_short_texts_is_held_against_that_for_batches(
    encoder: CpuEncoder, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    held: list[tuple[CpuEncoder, CpuEncoder]] = []

    def is_faster(one: CpuEncoder, other: CpuEncoder, *_: object) -> bool:
        held.append((one, other))
        return faster

    monkeypatch.setattr(calibration, "is_faster", is_faster)
    assert short_graph_pays(encoder, artifact.manifest) is faster
    [(one, other)] = held
    assert one is encoder
    assert not other.has_short_graph
    assert not short_graph_pays(other, artifact.manifest)
    assert len(held) == 1


def test_a_little_faster_is_not_worth_it(artifact: Artifact) -> None:
    def encode(seconds: float) -> Encode:
        def run(units: Sequence[Unit]) -> list[Vectors]:
            work(seconds)
            return [[] for _ in units]

        return run

    assert not is_faster(encode(1e-3), encode(1.08e-3), artifact.manifest, seconds=0.1)


FOUND = Calibration(max_batch_tokens=384, short_graph=True)


def test_what_was_found_is_kept_for_its_graph_and_method_alone(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = artifact.manifest.model_copy(update={"files": dict.fromkeys(artifact.manifest.files, "0")})
    CalibrationFile(tmp_path / "new", artifact.manifest).write(FOUND)
    assert CalibrationFile(tmp_path / "new", artifact.manifest).read() == FOUND
    assert CalibrationFile(tmp_path / "new", other).read() is None
    with monkeypatch.context() as patched:
        patched.setattr(calibration, "METHOD", calibration.METHOD + 1)
        assert CalibrationFile(tmp_path / "new", artifact.manifest).read() is None
    CalibrationFile(tmp_path / "new", other).write(Calibration(max_batch_tokens=64, short_graph=False))
    assert CalibrationFile(tmp_path / "new", artifact.manifest).read() == FOUND


@pytest.mark.parametrize("content", [b"", b"[]", b"not JSON", b"{}", b'{"as an older Berth kept it": 256}'])
def test_damaged_file_is_as_good_as_none(artifact: Artifact, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "calibration.json").write_bytes(content)
    file = CalibrationFile(tmp_path, artifact.manifest)
    assert file.read() is None
    file.write(FOUND)
    assert file.read() == FOUND


def test_folder_that_cannot_be_written_is_no_failure(artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    CalibrationFile(Path("/proc/nowhere"), artifact.manifest).write(FOUND)
    assert "the calibration cannot be kept" in caplog.text


def test_what_disturbs_a_round_does_not_count(artifact: Artifact) -> None:
    """The first round takes a thousand times as long for each budget but the largest."""
    seen: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        seen.append(sum(map(len, units)))
        slow = len(seen) < len(BUDGETS["cpu"])
        work(1e-5 * (1000 if slow else 1))
        return [[] for _ in units]

    assert best_budget(token_rates(encode, artifact.manifest, seconds=0.3), USUAL_BUDGET["cpu"]) == BUDGETS["cpu"][-1]
    assert len(seen) > 2 * len(BUDGETS["cpu"])


@pytest.fixture
def on_gpu(artifact: Artifact) -> Manifest:
    return artifact.manifest.model_copy(update={"target": "cuda"})


def test_gpu_is_measured_by_the_clock(on_gpu: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that waits for a GPU takes no CPU time of its thread."""
    seen: list[int] = []
    now = 0.0

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        nonlocal now
        seen.append(sum(map(len, units)))
        now += 0.02 if len(seen) <= len(BUDGETS["cuda"]) else 0.001
        return [[] for _ in units]

    clock = SimpleNamespace(thread_time=lambda: 0.0, perf_counter=lambda: now, monotonic=lambda: now)
    monkeypatch.setattr(calibration, "time", clock)
    rates = token_rates(encode, on_gpu, seconds=0.3)
    assert sorted(rates) == list(BUDGETS["cuda"])
    assert [budget / rate for budget, rate in rates.items()] == pytest.approx([0.001] * len(rates))


def test_budgets_end_where_the_memory_does(on_gpu: Manifest) -> None:
    seen: list[int] = []

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        seen.append(sum(map(len, units)))
        if seen[-1] > 4096:
            raise OutOfMemoryError("full")
        return [[] for _ in units]

    assert sorted(token_rates(encode, on_gpu, seconds=0.05)) == [1024, 2048, 4096]
    assert seen.count(8192) == 1


def test_no_memory_at_all_is_an_error(on_gpu: Manifest) -> None:
    def encode(_: Sequence[Unit]) -> list[Vectors]:
        raise OutOfMemoryError("full")

    with pytest.raises(OutOfMemoryError, match="a batch of 1024 tokens"):
        token_rates(encode, on_gpu, seconds=0.05)


def test_what_was_found_is_kept_for_its_gpus_alone(artifact: Artifact, tmp_path: Path) -> None:
    CalibrationFile(tmp_path, artifact.manifest, ["NVIDIA H200"]).write(FOUND)
    assert CalibrationFile(tmp_path, artifact.manifest, ["NVIDIA H200"]).read() == FOUND
    assert CalibrationFile(tmp_path, artifact.manifest, ["NVIDIA L4"]).read() is None
    assert CalibrationFile(tmp_path, artifact.manifest).read() is None
