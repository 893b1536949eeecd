"""The composition root: puts settings, model, queue and routes together, starts them and stops them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from berth import __version__
from berth.artifact import Artifact
from berth.batching.admission import Limits
from berth.batching.worker import Worker
from berth.cores import available_cores
from berth.errors import InvalidInputError
from berth.features import Feature
from berth.model import Model
from berth.placement import THREADS_PER_GPU, check_precision, gpus_for
from berth.types import Pooling
from service.api.auth import Auth
from service.api.errors import ErrorBody, add_error_handlers
from service.api.load_shedding import LoadShedding
from service.api.loading import LoadModel, load_then_serve
from service.api.middleware import Observe
from service.api.requests import JsonRoute
from service.api.routes import bert_as_service, embeddings, features, page, service, similarity, tei, tokens
from service.api.state import ServedModel, State
from service.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from service.api.tracing import Tracing

JOIN_SECONDS = 5.0
"""What an encoder thread has at the end to finish its batch; the queue is empty by then."""

ROUTERS = (
    embeddings.router,
    features.router,
    similarity.router,
    tokens.router,
    service.router,
    service.health,
    page.router,
    tei.encoding,
    tei.tokens,
    bert_as_service.router,
    bert_as_service.status_router,
)

READABLE = ("retry-after", "server-timing", "x-dtype", "x-request-id", "x-shape", "x-truncated-inputs")
"""The headers of an answer that scripts of other origins may read, beside those that they always may."""

NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own would send paths, query strings and exceptions' messages, in which there may be texts."""


def create_app(
    settings: Settings, artifact: Artifact, on_failure: Callable[[], None], load_model: LoadModel = Model.load
) -> FastAPI:
    """Make the application. It listens while it loads the model; `on_failure` is called where that fails, or where
    later the device does.

    Raises `InvalidInputError` where the model cannot give what the settings of `/encode` ask for or a package for
    tracing is missing, and `DeviceError` where the device cannot be used or is not what the model was exported for.
    """
    served = _served(settings, artifact)
    metrics = Metrics()
    metrics.describe_model(served.name, served.manifest)

    worker = Worker(
        threads=settings.threads or (THREADS_PER_GPU if served.gpus else available_cores()),
        devices=len(served.gpus) or 1,
        max_queue_tokens=settings.max_queue_tokens,
        bulk_share=0.0 if served.gpus else settings.bulk_share,
        on_batch=metrics.count_batch,
        on_lost=on_failure,
    )
    limits = Limits(
        settings.max_texts, settings.max_text_chars, settings.max_reply_numbers, tokens=settings.max_request_tokens
    )
    state = State(settings, metrics, limits, {served.name: served}, worker)
    tracing = _tracing(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(load_then_serve(state, served, on_failure, load_model))
        yield
        task.cancel()
        worker.stop()
        await asyncio.to_thread(worker.join, JOIN_SECONDS)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPIOffline(
        redoc_url=None,
        title="Berth",
        version=__version__,
        description="Text in, vectors out: every representation that an encoder has over HTTP.",
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
    )
    app.state.berth = state
    add_error_handlers(app)
    routers = (*ROUTERS, *([service.metrics_router] if settings.metrics_port is None else []))
    for router in routers:
        # For the documentation, where a key can then be entered; it is `Auth` that asks for one.
        is_open = router is service.health or (router is service.metrics_router and settings.metrics_access == "open")
        key = [Depends(HTTPBearer(auto_error=False))] if settings.api_keys and not is_open else []
        app.include_router(
            router, dependencies=key, responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}
        )
    _add_middleware(app, state, routers, tracing)
    return app


def _served(settings: Settings, artifact: Artifact) -> ServedModel:
    """Name a model, and check that it can give what the settings ask for."""
    manifest = artifact.manifest
    pooling = Pooling(settings.encode_pooling)
    fields = Feature(pooling, None if pooling is Pooling.POOLER else settings.encode_layers)
    feature = fields.resolve(manifest, place="encode_")
    check_precision(settings.precision, manifest, settings.int8_weights)
    name = settings.served_model_name or manifest.source.id
    return ServedModel(name, artifact, feature, gpus_for(settings.device, manifest))


def _add_middleware(app: FastAPI, state: State, routers: Sequence[APIRouter], tracing: "Tracing | None") -> None:
    """Add what a request meets before its route, the innermost first; what is not asked for is not there."""
    settings = state.settings
    routes = [route for router in routers for route in router.routes if isinstance(route, JsonRoute)]
    if settings.api_keys:
        app.add_middleware(Auth, settings=settings, formats={route.path: route.error_format for route in routes})
    if settings.cors_origins:
        # Cookies are not taken: there are none, a key is shown in a header.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=READABLE,
            max_age=3600,
        )
    if tracing is not None:
        app.add_middleware(tracing.middleware)
    app.add_middleware(Observe, state=state)
    formats = {route.path: route.error_format for route in routes if route.encodes}
    app.add_middleware(LoadShedding, state=state, formats=formats)


def create_metrics_app(state: State) -> FastAPI:
    """Make what a port of its own for health and metrics serves: nothing else, and that without keys."""
    app = FastAPI(title="Berth", docs_url=None, redoc_url=None, openapi_url=None, telemetry=NO_TELEMETRY)
    app.state.berth = state
    add_error_handlers(app)
    app.include_router(service.health)
    app.include_router(service.metrics_router)
    app.add_middleware(Observe, state=state)
    return app


def _tracing(settings: Settings) -> "Tracing | None":
    """Begin to trace where --tracing asks for it; otherwise its packages are not even loaded."""
    if settings.tracing == "off":
        return None
    try:
        from service.api.tracing import Tracing  # noqa: PLC0415  # optional packages
    except ModuleNotFoundError as error:
        message = f"needs OpenTelemetry ({error.name} is missing): pip install '.[otel]' in Berth's folder"
        raise InvalidInputError("--tracing", message) from None
    return Tracing()
