"""What threads are started beside the model."""

import asyncio
import threading
from pathlib import Path

import pytest

import service.api.loading
from service.api.app import create_app
from service.errors import EncoderError
from service.inference.artifact import Manifest, read_artifact
from service.inference.calibration import CalibrationFile
from service.inference.encoder import CpuEncoder
from service.inference.runner import Encode
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


@pytest.mark.parametrize("pays", [True, False])
def test_the_graph_for_short_texts_is_kept_where_it_pays(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: bool
) -> None:
    """At a first start it is loaded and tried, later it is known, and not even loaded where it does not pay."""
    monkeypatch.setattr(service.api.loading, "short_graph_pays", lambda _encoder, _manifest: pays)
    settings, artifact = Settings(cache_dir=tmp_path, max_batch_tokens=64), read_artifact(tiny_artifact)
    file = CalibrationFile(tmp_path, artifact.manifest)

    async def encoders() -> tuple[Encode, Encode]:
        app = create_app(settings, artifact, on_failure=lambda: None)
        async with app.router.lifespan_context(app):
            while not app.state.berth.ready:  # nothing tells
                await asyncio.sleep(0.01)
            watched = app.state.berth.engine.encoders[0]
            first = watched.encode
            while file.read() is None:
                await asyncio.sleep(0.01)
            return first, watched.encode

    for known in (False, True):
        first, then = asyncio.run(asyncio.wait_for(encoders(), 60))
        assert isinstance(first, CpuEncoder)
        assert isinstance(then, CpuEncoder)
        assert first.has_short_graph is (pays or not known)
        assert then.has_short_graph is pays
    found = file.read()
    assert found is not None
    assert found.short_graph is pays
