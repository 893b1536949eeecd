"""How many tokens a batch should hold: measured by a clock that the tests turn, and kept by GPU."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from berth.artifact import Artifact, Manifest
from berth.backends.cuda import calibration
from berth.backends.cuda.calibration import BUDGETS, USUAL_BUDGET, CalibrationFile, best_budget, token_rates
from berth.contract import FakeEncoder
from berth.errors import OutOfMemoryError
from berth.types import TokenSequence, Vectors

GPUS = ["NVIDIA H200"]


@pytest.fixture
def manifest(artifact: Artifact) -> Manifest:
    return artifact.manifest.model_copy(update={"target": "cuda"})


class Gpu(FakeEncoder):
    """A GPU that takes as long as a function says of a batch's tokens and its place among all batches.

    It is the clock too: nothing else takes time.
    """

    def __init__(self, seconds: Callable[[int, int], float], memory: int = 1 << 30) -> None:
        super().__init__(self._encode)
        self.batches: list[int] = []
        self.now = 0.0
        self._seconds = seconds
        self._memory = memory

    def _encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        tokens = sum(map(len, sequences))
        self.now += self._seconds(tokens, len(self.batches))
        self.batches.append(tokens)
        if tokens > self._memory:
            raise OutOfMemoryError("full")
        return [[] for _ in sequences]


MakeGpu = Callable[..., Gpu]


@pytest.fixture
def make_gpu(monkeypatch: pytest.MonkeyPatch) -> MakeGpu:
    """Give a function that makes a GPU whose time is the calibration's."""

    def make(seconds: Callable[[int, int], float], memory: int = 1 << 30) -> Gpu:
        gpu = Gpu(seconds, memory)
        monkeypatch.setattr(calibration, "time", SimpleNamespace(perf_counter=lambda: gpu.now))
        return gpu

    return make


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({2048: 98.0, 4096: 98.0, 8192: 98.0, 16384: 100.0}, 8192),  # nearly as fast, and what is usual
        ({2048: 100.0, 4096: 98.0, 8192: 92.0, 16384: 85.0}, 4096),  # the nearest of those that are nearly as fast
        ({8192: 80.0, 16384: 90.0, 32768: 100.0}, 32768),
        ({4096: 1.0}, 4096),
    ],
)
def test_of_those_that_are_nearly_the_fastest_the_usual_is_best(rates: dict[int, float], best: int) -> None:
    assert best_budget(rates) == best


def test_each_budget_is_tried_with_as_many_tokens(make_gpu: MakeGpu, manifest: Manifest) -> None:
    gpu = make_gpu(lambda tokens, _: tokens * 1e-6)
    rates = token_rates(gpu, manifest, seconds=0.2)
    assert list(rates) == gpu.batches[: len(BUDGETS)]
    assert sorted(rates) == list(BUDGETS)
    assert gpu.batches[0] == USUAL_BUDGET
    assert list(rates.values()) == pytest.approx([1e6] * len(BUDGETS))


def test_texts_are_no_longer_than_the_model_takes(make_gpu: MakeGpu, manifest: Manifest) -> None:
    short = manifest.model_copy(update={"max_tokens": 8})
    longest: list[int] = []

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        longest.append(max(map(len, sequences)))
        return [[] for _ in sequences]

    token_rates(FakeEncoder(encode), short, seconds=0, budgets=[64, 128])
    assert longest == [8]


def test_slow_machine_tries_what_there_is_time_for(make_gpu: MakeGpu, manifest: Manifest) -> None:
    gpu = make_gpu(lambda *_: 2.0)
    assert token_rates(gpu, manifest, seconds=1) == {USUAL_BUDGET: USUAL_BUDGET / 2}
    assert gpu.batches == [USUAL_BUDGET]


def test_what_disturbs_a_round_does_not_count(make_gpu: MakeGpu, manifest: Manifest) -> None:
    """The first round takes twenty times as long for each budget but the last one tried."""
    gpu = make_gpu(lambda _, place: 0.02 if place < len(BUDGETS) - 1 else 0.001)
    rates = token_rates(gpu, manifest, seconds=0.3)
    assert sorted(rates) == list(BUDGETS)
    assert [budget / rate for budget, rate in rates.items()] == pytest.approx([0.001] * len(rates))
    assert best_budget(rates) == BUDGETS[-1]  # which is the fastest where all take as long
    assert len(gpu.batches) > 2 * len(BUDGETS)


def test_budgets_end_where_the_memory_does(make_gpu: MakeGpu, manifest: Manifest) -> None:
    gpu = make_gpu(lambda *_: 0.001, memory=4096)
    assert sorted(token_rates(gpu, manifest, seconds=0.05)) == [1024, 2048, 4096]
    assert gpu.batches.count(8192) == 1


def test_no_memory_at_all_is_an_error(make_gpu: MakeGpu, manifest: Manifest) -> None:
    with pytest.raises(OutOfMemoryError, match="a batch of 1024 tokens"):
        token_rates(make_gpu(lambda *_: 0.001, memory=1023), manifest, seconds=0.05)


def test_budgets_can_be_given(make_gpu: MakeGpu, manifest: Manifest) -> None:
    gpu = make_gpu(lambda *_: 0.001)
    assert sorted(token_rates(gpu, manifest, seconds=0.05, budgets=[64, 128])) == [64, 128]
    assert set(gpu.batches) == {64, 128}


def test_what_was_found_is_kept_for_its_graph_and_method_alone(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = manifest.model_copy(update={"files": dict.fromkeys(manifest.files, "0")})
    CalibrationFile(tmp_path / "new", manifest, GPUS).write(16384)
    assert CalibrationFile(tmp_path / "new", manifest, GPUS).read() == 16384
    assert CalibrationFile(tmp_path / "new", other, GPUS).read() is None
    with monkeypatch.context() as patched:
        patched.setattr(calibration, "METHOD", calibration.METHOD + 1)
        assert CalibrationFile(tmp_path / "new", manifest, GPUS).read() is None
    CalibrationFile(tmp_path / "new", other, GPUS).write(64)
    assert CalibrationFile(tmp_path / "new", manifest, GPUS).read() == 16384
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["calibration.json"]


def test_what_was_found_is_kept_for_its_gpus_alone(manifest: Manifest, tmp_path: Path) -> None:
    CalibrationFile(tmp_path, manifest, ["NVIDIA H200"]).write(16384)
    assert CalibrationFile(tmp_path, manifest, ["NVIDIA H200"]).read() == 16384
    assert CalibrationFile(tmp_path, manifest, ["NVIDIA L4"]).read() is None
    assert CalibrationFile(tmp_path, manifest, ["NVIDIA H200"] * 2).read() is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"not JSON", b"{}", b'{"none": 0}'),
        b'{"as an older Berth kept it": {"max_batch_tokens": 256, "short_graph": true}}',
    ],
)
def test_damaged_file_is_as_good_as_none(manifest: Manifest, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "calibration.json").write_bytes(content)
    file = CalibrationFile(tmp_path, manifest, GPUS)
    assert file.read() is None
    file.write(4096)
    assert file.read() == 4096


def test_folder_that_cannot_be_written_is_no_failure(manifest: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    CalibrationFile(Path("/proc/nowhere"), manifest, GPUS).write(4096)
    assert "the calibration cannot be kept" in caplog.text
