"""How the application is put together for GPUs, with the CPU's encoder in their place."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import service.api.app
import service.api.loading
from service.api.app import create_app
from service.api.loading import THREADS_PER_GPU
from service.inference.artifact import Artifact, read_artifact
from service.inference.encoder import CpuEncoder
from service.inference.runner import Encode
from service.inference.scheduler import Kind
from service.settings import Settings


@pytest.fixture
def opened(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int | None]]:
    """Have GPUs; gives a list of those on which the model was loaded, each with its bound of memory."""
    calls: list[tuple[int, int | None]] = []
    on_cpu = CpuEncoder(read_artifact(tiny_artifact))

    def open_encoder(_: Artifact, device: int, memory_limit: int | None) -> Encode:
        calls.append((device, memory_limit))
        return on_cpu

    monkeypatch.setattr(service.api.loading, "open_cuda_encoder", open_encoder)
    monkeypatch.setattr(service.api.app, "gpus_for", lambda *_: {1: "NVIDIA H200", 3: "NVIDIA L4"})
    return calls


def test_every_gpu_has_the_model_and_threads_of_its_own(
    tiny_artifact: Path, opened: list[tuple[int, int | None]]
) -> None:
    artifact = read_artifact(tiny_artifact)
    artifact = replace(artifact, manifest=artifact.manifest.model_copy(update={"target": "cuda", "precision": "fp16"}))
    settings = Settings(device="cuda:1,3", gpu_memory_limit=1 << 30, max_batch_tokens=64)
    app = create_app(settings, artifact, on_failure=lambda: None)
    others = set(threading.enumerate())

    async def main() -> int:
        async with app.router.lifespan_context(app):
            while not app.state.berth.ready:  # nothing tells
                await asyncio.sleep(0.01)
            return sum(thread.name.startswith("encoder-") for thread in set(threading.enumerate()) - others)

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 2 * len(Kind) * THREADS_PER_GPU
    assert opened == [(1, 1 << 30), (3, 1 << 30)]
    assert list(app.state.berth.gpus.values()) == ["NVIDIA H200", "NVIDIA L4"]
