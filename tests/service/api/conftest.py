"""The application in this process, without a network, its encoder real or a fake."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.api.state import Engine, State
from service.inference.artifact import Artifact
from service.inference.cache import VectorCache
from service.inference.embedder import Embedder, Limits
from service.inference.encoder import CpuEncoder
from service.inference.runner import Encode, Runner
from service.inference.scheduler import Scheduler
from service.inference.tokenizer import Tokenizer
from service.inference.watch import Watch
from service.settings import Settings


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
        if self.state.engine is not None:
            self.state.engine.runner.stop()
        self.run(self.client.aclose())


MakeApi = Callable[..., Api]


@pytest.fixture(scope="session")
def api_loop() -> Iterator[asyncio.Runner]:
    """Give the event loop of the applications."""
    with asyncio.Runner() as loop:
        yield loop


@pytest.fixture(scope="session")
def build_api(api_loop: asyncio.Runner, artifact: Artifact, tokenizer: Tokenizer) -> MakeApi:
    """Give a function that builds an application around an encoder; None leaves the model unloaded."""

    def build(encode: Encode | None, **settings: Any) -> Api:
        api = Api(api_loop, create_app(Settings(**settings), artifact, on_failure=lambda: None))
        if encode is not None:
            api.run(load(api.state, encode))
        return api

    async def load(state: State, encode: Encode) -> None:
        settings = state.settings
        watch = Watch(encode, patience=settings.request_timeout)
        runner = Runner(
            [watch],
            Scheduler(settings.max_batch_tokens or 256),
            threads=1,
            max_queue_tokens=settings.max_queue_tokens,
            cache=VectorCache(0),
            on_batch=state.metrics.count_batch,
        )
        runner.start()
        limits = Limits(settings.max_texts, settings.max_text_chars, settings.max_reply_numbers)
        state.engine = Engine(tokenizer, [watch], runner, Embedder(tokenizer, runner, state.manifest, limits))

    return build


@pytest.fixture
def make_api(build_api: MakeApi) -> Iterator[MakeApi]:
    """Give a function that builds an application for one test."""
    built: list[Api] = []

    def make(encode: Encode | None, **settings: Any) -> Api:
        built.append(build_api(encode, **settings))
        return built[-1]

    yield make
    for api in built:
        api.close()


@pytest.fixture(scope="session")
def api(build_api: MakeApi, encoder: CpuEncoder) -> Iterator[Api]:
    """Give the application with the default model, which most tests share."""
    api = build_api(encoder)
    yield api
    api.close()
