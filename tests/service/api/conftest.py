"""The application in this process, without a network, around a model whose backend is the real encoder or a fake."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from berth.artifact import Artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.batching.worker import ModelLane, Worker
from berth.contract import Backend
from berth.embedder import Embedder
from berth.model import Model
from berth.text.tokenizer import Tokenizer
from service.api.app import create_app
from service.api.state import Engine, ServedModel, State
from service.settings import Settings
from tests.service.api.gate import Gate


class Api:
    """An application and a client of it."""

    def __init__(self, loop: asyncio.Runner, app: FastAPI) -> None:
        self._loop = loop
        self.app = app
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://berth")

    @property
    def state(self) -> State:
        """What the routes share."""
        state: State = self.app.state.berth
        return state

    @property
    def model(self) -> ServedModel:
        """The model that is served."""
        return self.state.model()

    @property
    def worker(self) -> Worker:
        """What runs the queue's batches."""
        return self.state.worker

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the application's event loop."""
        return self._loop.run(scenario)

    def post(self, path: str, fields: object = None, **options: Any) -> httpx.Response:
        """Send one request; `fields` become its JSON."""
        if fields is not None:
            options["json"] = fields
        response: httpx.Response = self.run(self.client.post(path, **options))
        return response

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Read one page."""
        response: httpx.Response = self.run(self.client.get(path, **options))
        return response

    def sample(self, name: str, /, **labels: str) -> float:
        """Read a metric; 0 where it is not there."""
        return self.state.metrics.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        """End the encoder's threads and the client."""
        self.worker.stop()
        self.run(self.client.aclose())


MakeApi = Callable[..., Api]


@pytest.fixture(scope="session")
def api_loop() -> Iterator[asyncio.Runner]:
    """Give the event loop of the applications."""
    with asyncio.Runner() as loop:
        yield loop


@pytest.fixture(scope="session")
def build_api(api_loop: asyncio.Runner, artifact: Artifact, tokenizer: Tokenizer) -> MakeApi:
    """Give a function that builds an application around a backend; None leaves the model unloaded.

    `manifest` are fields of the artifact's that are to be others.
    """

    def build(backend: Backend | None, *, manifest: Mapping[str, Any] | None = None, **settings: Any) -> Api:
        amended = replace(artifact, manifest=artifact.manifest.model_copy(update=manifest))
        settings = {"threads": 1, "max_batch_tokens": 256} | settings
        api = Api(api_loop, create_app(Settings(**settings), amended, on_failure=lambda: None))
        if backend is not None:
            api.run(load(api, backend))
        return api

    async def load(api: Api, backend: Backend) -> None:
        model = Model(api.model.manifest, tokenizer, [backend])
        lane = ModelLane(api.state.settings.max_batch_tokens or 256, model.manifest.max_tokens, [backend])
        api.worker.start()
        api.model.engine = Engine(model, lane, Embedder(model, api.worker, lane, api.state.limits))

    return build


@pytest.fixture
def make_api(build_api: MakeApi) -> Iterator[MakeApi]:
    """Give a function that builds an application for one test."""
    built: list[Api] = []

    def make(backend: Backend | None, **options: Any) -> Api:
        built.append(build_api(backend, **options))
        return built[-1]

    yield make
    for api in built:
        api.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give an encoder that stands still, and let it go at the end."""
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture(scope="session")
def api(build_api: MakeApi, encoder: CpuEncoder) -> Iterator[Api]:
    """Give the application with the default model, which most tests share."""
    api = build_api(encoder)
    yield api
    api.close()
