"""What threads are started beside the model."""

import asyncio
import threading
from pathlib import Path

import pytest

import service.api.loading
from service.api.app import create_app
from service.inference.artifact import read_artifact
from service.settings import Settings


@pytest.mark.parametrize(("cores", "alone"), [(1, True), (1, False), (2, False)])
def test_each_core_has_a_thread_of_each_kind_and_one_that_all_share_a_beat(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, cores: int, alone: bool
) -> None:
    monkeypatch.setattr(service.api.loading, "available_cores", lambda _: cores)
    monkeypatch.setattr(service.api.loading, "on_one_core", lambda: alone)
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
