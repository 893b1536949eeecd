"""What is loaded, which threads are started beside it, and what is found out about it."""

import asyncio
import threading
from pathlib import Path

import pytest

import service.api.loading
from service.api.app import create_app
from service.api.loading import calibrate, load, load_then_serve
from service.api.state import State
from service.errors import EncoderError
from service.inference.artifact import Manifest, read_artifact
from service.inference.calibration import Calibration, CalibrationFile
from service.inference.encoder import CpuEncoder
from service.inference.runner import Encode, Runner
from service.inference.scheduler import Scheduler
from service.settings import Settings


@pytest.mark.parametrize(("cores", "alone"), [(1, True), (1, False), (2, False)])
def test_each_core_has_a_thread_of_each_kind_and_one_that_all_share_a_beat(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, cores: int, alone: bool
) -> None:
    monkeypatch.setattr(service.api.loading, "available_cores", lambda _: cores)
    monkeypatch.setattr(service.api.loading, "on_one_core", lambda: alone)
    rehearsed: list[tuple[int, int]] = []
    monkeypatch.setattr(service.api.loading, "rehearse", lambda _encode, _manifest, *sizes: rehearsed.append(sizes))
    app = create_app(Settings(max_batch_tokens=64), read_artifact(tiny_artifact), on_failure=lambda: None)
    others = set(threading.enumerate())

    async def main() -> list[str]:
        async with app.router.lifespan_context(app):
            while not app.state.berth.ready:  # nothing tells
                await asyncio.sleep(0.01)
            return sorted(thread.name for thread in set(threading.enumerate()) - others)

    names = asyncio.run(asyncio.wait_for(main(), 60))
    encoders = [f"encoder-{kind}-{number}" for kind in ("bulk", "short") for number in range(cores)]
    assert [name for name in names if name.startswith(("beat", "encoder"))] == ["beat"] * alone + encoders
    assert rehearsed == [(64, 2 * cores)]


@pytest.mark.parametrize("error", [None, EncoderError("there is no memory"), RuntimeError("can't start new thread")])
def test_a_budget_that_was_found_is_rehearsed_too_and_a_rehearsal_that_fails_is_told(
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception | None,
) -> None:
    rehearsed: list[int] = []

    def rehearse(_encode: Encode, _manifest: Manifest, tokens: int, _times: int) -> None:
        rehearsed.append(tokens)
        if error is not None:
            raise error

    monkeypatch.setattr(service.api.loading, "rehearse", rehearse)
    monkeypatch.setattr(service.api.loading, "best_budget", lambda _rates, _usual: 192)
    app = create_app(Settings(cache_dir=tmp_path), read_artifact(tiny_artifact), on_failure=lambda: None)

    def told() -> bool:
        return f"the largest batches fail: {error}" in caplog.messages

    async def main() -> None:
        async with app.router.lifespan_context(app):
            while not rehearsed or told() is (error is None):  # nothing else tells
                await asyncio.sleep(0.01)
            assert app.state.berth.ready

    asyncio.run(asyncio.wait_for(main(), 60))
    assert rehearsed == [192]


@pytest.fixture
def pays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Have the calibration find batches of 192 tokens, and that the graph for short texts pays or does not."""
    monkeypatch.setattr(service.api.loading, "short_graph_pays", lambda _encoder, _manifest: request.param)
    monkeypatch.setattr(service.api.loading, "best_budget", lambda _rates, _usual: 192)
    return bool(request.param)


def load_and_calibrate(artifact: Path, settings: Settings) -> tuple[list[bool], int]:
    """Tell whether there is a graph for short texts before and after the calibration, and the budget after it."""
    app = create_app(settings, read_artifact(artifact), on_failure=lambda: None)
    state: State = app.state.berth
    engine = load(state, read_artifact(artifact), lambda: None)

    def has_short_graph() -> bool:
        encode = engine.encoders[0].encode
        assert isinstance(encode, CpuEncoder)
        return encode.has_short_graph

    before = has_short_graph()
    asyncio.run(asyncio.wait_for(calibrate(state, engine), 60))
    return [before, has_short_graph()], engine.runner.max_batch_tokens


@pytest.mark.parametrize("pays", [True, False], indirect=True)
def test_the_graph_for_short_texts_is_not_even_loaded_where_it_is_known_not_to_pay(
    tiny_artifact: Path, tmp_path: Path, pays: bool
) -> None:
    settings = Settings(cache_dir=tmp_path)
    assert load_and_calibrate(tiny_artifact, settings) == ([True, pays], 192)
    assert load_and_calibrate(tiny_artifact, settings) == ([pays, pays], 192)


@pytest.mark.parametrize("pays", [True, False], indirect=True)
def test_a_budget_that_is_set_is_not_measured_and_nothing_is_kept(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: bool
) -> None:
    monkeypatch.delattr(service.api.loading, "token_rates")
    settings = Settings(cache_dir=tmp_path, max_batch_tokens=64)
    for _ in range(2):
        assert load_and_calibrate(tiny_artifact, settings) == ([True, pays], 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pays", [True], indirect=True)
def test_what_another_worker_finds_meanwhile_is_taken(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: bool
) -> None:
    manifest = read_artifact(tiny_artifact).manifest

    def begin(*_: object) -> Scheduler:  # between what is read at the start and the calibration
        CalibrationFile(tmp_path, manifest).write(Calibration(max_batch_tokens=128, short_graph=False))
        return Scheduler(384)

    monkeypatch.setattr(service.api.loading, "Scheduler", begin)
    assert load_and_calibrate(tiny_artifact, Settings(cache_dir=tmp_path)) == ([True, False], 128)


def test_an_engine_that_cannot_be_started_is_a_failure_and_not_silence(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_: Runner) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Runner, "start", start)
    failures: list[None] = []
    app = create_app(Settings(), read_artifact(tiny_artifact), on_failure=lambda: None)
    asyncio.run(load_then_serve(app.state.berth, read_artifact(tiny_artifact), lambda: failures.append(None)))
    assert (len(failures), app.state.berth.engine) == (1, None)
    assert "can't start new thread" in caplog.text
