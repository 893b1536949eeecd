"""How the application is put together for GPUs, with backends without a model in their place."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import service.api.app
import service.api.loading
from berth.artifact import Artifact, read_artifact
from berth.backends.cuda.encoder import CudaEncoder
from berth.batching.queue import Priority
from berth.contract import Backend
from berth.errors import OutOfMemoryError
from berth.model import Model, open_tokenizer
from berth.placement import THREADS_PER_GPU
from berth.types import TokenSequence, Vectors
from service.api.app import create_app
from service.api.state import State
from service.settings import Settings

GPUS = {1: "NVIDIA H200", 3: "NVIDIA L4"}
USUAL, BEST = 8192, 2048
"""Tokens of a batch, before and after the calibration."""


class Gpu(CudaEncoder):
    """An encoder on a GPU without one."""

    def __init__(self) -> None:
        self.max_batch_tokens = USUAL
        self.trimmed = 0

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Give nothing."""
        return [[] for _ in sequences]

    def trim(self) -> None:
        """Note it."""
        self.trimmed += 1


@dataclass
class Machine:
    """GPUs, and what was asked of them."""

    calls: list[tuple[Sequence[int], int | None]] = field(default_factory=list)
    gpus: list[Backend] = field(default_factory=list)
    measured: int = 0
    error: Exception | None = None

    def load(self, artifact: Artifact, gpus: Sequence[int], limit: int | None) -> Model:
        """Load a model on some of the GPUs."""
        self.calls.append((gpus, limit))
        self.gpus = [Gpu() for _ in gpus]
        return Model(artifact.manifest, open_tokenizer(artifact), self.gpus)

    def token_rates(self, backend: Backend, _manifest: object) -> dict[int, float]:
        """Measure one of the GPUs."""
        assert backend is self.gpus[0]
        self.measured += 1
        if self.error is not None:
            raise self.error
        return {BEST: 1.0}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Have GPUs."""
    machine = Machine()
    monkeypatch.setattr(service.api.app, "gpus_for", lambda *_: GPUS)
    monkeypatch.setattr(service.api.loading, "token_rates", machine.token_rates)
    return machine


def serve(machine: Machine, artifact: Path, **settings: Any) -> tuple[State, int, int]:
    """Serve until it is ready and calibrated; gives the state, its encoder threads and the tokens of a batch."""
    given = read_artifact(artifact)
    given = replace(given, manifest=given.manifest.model_copy(update={"target": "cuda", "precision": "fp16"}))
    app = create_app(Settings(**settings), given, on_failure=lambda: None, load_model=machine.load)
    state: State = app.state.berth
    others = set(threading.enumerate())
    watched = asyncio.Event()

    async def watchdog(_: State) -> None:
        watched.set()

    async def main() -> tuple[State, int, int]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(service.api.loading, "watchdog", watchdog)  # which would go on for ever
            loading = service.api.loading.load_then_serve(state, state.model(), lambda: None, machine.load)
            await loading
        threads = sum(thread.name.startswith("encoder-") for thread in set(threading.enumerate()) - others)
        state.worker.stop()
        return state, threads, state.model().loaded().lane.max_batch_tokens

    found = asyncio.run(asyncio.wait_for(main(), 60))
    assert watched.is_set()
    return found


def test_every_gpu_has_the_model_and_threads_of_its_own(tiny_artifact: Path, tmp_path: Path, machine: Machine) -> None:
    settings = {"device": "cuda:1,3", "gpu_memory_limit": 1 << 30, "max_batch_tokens": 64}
    state, threads, budget = serve(machine, tiny_artifact, cache_dir=tmp_path, **settings)
    assert threads == 2 * len(Priority) * THREADS_PER_GPU
    assert machine.calls == [((1, 3), 1 << 30)]
    assert list(state.model().gpus.values()) == ["NVIDIA H200", "NVIDIA L4"]
    assert (budget, machine.measured) == (64, 0)
    assert state.worker.bulk_share == 0, "a batch on a card takes no CPU time, by which bulk's share is told"
    assert not list(tmp_path.iterdir()), "a budget that is set is not measured, and nothing is kept"


def test_the_best_budget_is_found_once_and_known_at_the_next_start(
    tiny_artifact: Path, tmp_path: Path, machine: Machine
) -> None:
    assert serve(machine, tiny_artifact, cache_dir=tmp_path)[2] == BEST
    assert [gpu.trimmed for gpu in machine.gpus if isinstance(gpu, Gpu)] == [1, 0]
    assert serve(machine, tiny_artifact, cache_dir=tmp_path)[2] == BEST
    assert machine.measured == 1


def test_a_calibration_that_fails_is_told_and_the_usual_budget_stays(
    tiny_artifact: Path, tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.error = OutOfMemoryError("there is no memory")
    state, _, budget = serve(machine, tiny_artifact, cache_dir=tmp_path)
    assert (budget, state.ready) == (USUAL, True)
    assert "the calibration failed: there is no memory" in caplog.messages
    assert not list(tmp_path.iterdir())
