"""What is loaded, which threads are started for it, and what is found out about it while it serves."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import service.api.app
import service.api.loading
from berth.artifact import Artifact, read_artifact
from berth.batching.worker import Worker
from berth.contract import FakeEncoder
from berth.errors import EncoderError
from berth.model import Model, open_tokenizer
from berth.types import TokenSequence, Vectors
from service.api.app import create_app
from service.api.loading import CHECKS, LoadModel, load, load_then_serve, watchdog
from service.api.state import Engine, State
from service.metrics import Metrics
from service.settings import Settings

BOUND = 60.0


class Recorder(FakeEncoder):
    """Notes the lengths of each batch; fails where there is an error to fail with."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(max_batch_tokens=192)
        self.batches: list[list[int]] = []
        self._error = error

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Note the batch."""
        self.batches.append([len(sequence) for sequence in sequences])
        if self._error is not None:
            raise self._error
        return super().encode(sequences)


def loads(backend: FakeEncoder) -> LoadModel:
    """Give a function that loads a backend in place of an artifact's."""
    return lambda artifact, _gpus, _limit: Model(artifact.manifest, open_tokenizer(artifact), [backend])


def serve(
    artifact: Path, backend: FakeEncoder, settings: Settings, ready: Callable[[State], object] = lambda _: None
) -> Any:
    """Start an application, wait until it is ready, and give what a function finds then."""
    app = create_app(settings, read_artifact(artifact), on_failure=lambda: None, load_model=loads(backend))

    async def main() -> Any:
        async with app.router.lifespan_context(app):
            state: State = app.state.berth
            while not state.ready:  # nothing tells
                await asyncio.sleep(0.01)
            return ready(state)

    return asyncio.run(asyncio.wait_for(main(), BOUND))


@pytest.mark.parametrize(("threads", "cores", "expected"), [(None, 1, 1), (None, 2, 2), (3, 2, 3)])
def test_each_core_has_a_thread_of_each_priority_and_the_largest_batches_are_run_first(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None, cores: int, expected: int
) -> None:
    monkeypatch.setattr(service.api.app, "available_cores", lambda: cores)
    backend = Recorder()
    others = set(threading.enumerate())

    def names(_: State) -> list[str]:
        started = set(threading.enumerate()) - others
        return sorted(thread.name for thread in started if thread.name.startswith("encoder"))

    settings = Settings(max_batch_tokens=64, threads=threads)
    found = serve(tiny_artifact, backend, settings, names)
    assert found == [f"encoder-{kind}-{number}" for kind in ("bulk", "short") for number in range(expected)]
    assert len(backend.batches) == 2 * 2 * expected, "the largest batch and the longest text, on each thread"
    assert {sum(batch) for batch in backend.batches} == {64, 40}


@pytest.mark.parametrize("error", [EncoderError("there is no memory"), RuntimeError("can't start new thread")])
def test_a_warm_up_that_fails_is_told_and_the_model_served(
    tiny_artifact: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    serve(tiny_artifact, Recorder(error), Settings(threads=1))
    assert f"the largest batches fail: {error}" in caplog.messages


@pytest.mark.parametrize(("given", "budget"), [(None, 192), (64, 64)])
def test_a_batch_holds_what_is_set_or_what_suits_the_backend(
    tiny_artifact: Path, tmp_path: Path, given: int | None, budget: int
) -> None:
    """On the CPU nothing is measured, and nothing kept in the cache's folder."""
    backend = Recorder()

    def budgets(state: State) -> tuple[int, float | None]:
        told = state.metrics.registry.get_sample_value("berth_max_batch_tokens")
        return state.model().loaded().lane.max_batch_tokens, told

    settings = Settings(threads=1, max_batch_tokens=given, cache_dir=tmp_path)
    assert serve(tiny_artifact, backend, settings, budgets) == (budget, budget)
    assert max(map(sum, backend.batches)) == budget
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "is_cached"), [(0, False), (10, True)])
def test_vectors_are_kept_where_that_is_asked_for(tiny_artifact: Path, size: int, is_cached: bool) -> None:
    app = create_app(Settings(cache_size=size), read_artifact(tiny_artifact), on_failure=lambda: None)
    engine: Engine = load(app.state.berth, app.state.berth.model(), loads(FakeEncoder()))
    assert (engine.lane.cache is not None) is is_cached


def failing_to_start(_: Worker) -> None:
    raise RuntimeError("can't start new thread")


def failing_to_load(_artifact: Artifact, _gpus: Sequence[int], _limit: int | None) -> Model:
    raise RuntimeError("can't load")


@pytest.mark.parametrize("what", ["start", "load"])
def test_an_engine_that_cannot_be_loaded_or_started_is_a_failure_and_not_silence(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    load_model = loads(FakeEncoder()) if what == "start" else failing_to_load
    monkeypatch.setattr(Worker, "start", failing_to_start)
    failures: list[None] = []
    app = create_app(Settings(threads=1), read_artifact(tiny_artifact), on_failure=lambda: None)
    state: State = app.state.berth
    asyncio.run(load_then_serve(state, state.model(), lambda: failures.append(None), load_model))
    assert (len(failures), state.model().engine, state.ready) == (1, None, False)
    assert f"can't {'start new thread' if what == 'start' else 'load'}" in caplog.text


# The watchdog, at each of whose checks the oldest batch has an age; tests/faults lets real batches hang

OLD, YOUNG, NONE = 30.5, 29.5, 0.0
"""Seconds, where a request may take 30."""


def watched(state: State, ages: Iterable[float]) -> Iterator[bool]:
    """Yield, for each age that a check of the watchdog finds, whether the encoder counts as hung after it."""
    found: list[bool] = []
    left = iter(ages)

    def oldest_batch() -> float:
        found.append(state.hung)
        try:
            return next(left)
        except StopIteration:
            raise asyncio.CancelledError from None

    state.worker = cast("Worker", SimpleNamespace(oldest_batch=oldest_batch))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watchdog(state))
    return iter(found[1:])


@pytest.fixture
def state(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Give a service where a request may take 30 seconds, and which is checked without a pause."""
    monkeypatch.setattr(service.api.loading, "CHECK_SECONDS", 0)
    app = create_app(Settings(request_timeout=30), read_artifact(tiny_artifact), on_failure=lambda: None)
    state: State = app.state.berth
    return state


def stalls(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("berth_encoder_stalls_total")


def test_a_batch_that_is_long_within_a_requests_time_hangs_not(state: State) -> None:
    assert set(watched(state, [YOUNG, NONE] * CHECKS + [YOUNG] * 3 * CHECKS)) == {False}
    assert stalls(state.metrics) == 0


def test_a_batch_that_runs_longer_than_a_request_may_take_hangs_until_it_ends(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    hung = list(watched(state, [OLD] * (CHECKS + 20) + [NONE, YOUNG]))
    assert hung == [False] * (CHECKS - 1) + [True] * 21 + [False, False]
    assert stalls(state.metrics) == 1
    assert [record.levelname for record in caplog.records if "hangs" in record.message] == ["CRITICAL", "WARNING"]


def test_every_hang_counts(state: State) -> None:
    hung = list(watched(state, ([OLD] * CHECKS + [YOUNG]) * 3))
    assert hung == ([False] * (CHECKS - 1) + [True, False]) * 3
    assert stalls(state.metrics) == 3


def test_batches_that_look_old_for_a_moment_hang_not(state: State) -> None:
    """So it is after SIGSTOP and SIGCONT: all that ran looks old, and ends."""
    assert set(watched(state, ([OLD] * (CHECKS - 1) + [NONE]) * 5)) == {False}
    assert stalls(state.metrics) == 0
