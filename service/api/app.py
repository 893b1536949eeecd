"""The composition root: puts settings, model, queue and routes together, starts them and stops them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from service import __version__
from service.api.cors import add_cors
from service.api.doors import Doors
from service.api.errors import ErrorBody, add_error_handlers
from service.api.fields import FeatureFields
from service.api.loading import begin, calibrate, load, load_then_serve, refresh, watch
from service.api.middleware import Observe
from service.api.requests import EncoderRoute, JsonRoute
from service.api.routes import bert_as_service, embeddings, features, page, service, similarity, tei, tokens
from service.api.shedder import Shedder
from service.api.shortcut import Shortcut
from service.api.state import State
from service.api.wishes import feature_of
from service.errors import InvalidInputError
from service.inference.artifact import Artifact
from service.inference.types import Pooling
from service.metrics import Metrics, Share
from service.placement import check_precision, gpus_for
from service.settings import Settings

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

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

NO_TELEMETRY: "TelemetryConfig" = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own would send paths, query strings and exceptions' messages, in which there may be texts."""


def create_app(
    settings: Settings, artifact: Artifact, on_failure: Callable[[], None], share: Share | None = None
) -> FastAPI:
    """Make the application. It listens while it loads the model; `on_failure` is called where that fails, or where
    later the device does.

    One of several workers, which has a share of the metrics, loads the model here and now: it has their common port
    open, and a request that another could answer must not find it unready.

    Raises `InvalidInputError` where the model cannot give what the settings of `/encode` ask for or a package for
    tracing is missing, `DeviceError` where the device cannot be used or is not what the model was exported for, and
    `ArtifactError` where a worker's model cannot be loaded.
    """
    manifest = artifact.manifest
    name = settings.served_model_name or manifest.source.id
    pooling = Pooling(settings.encode_pooling)
    fields = FeatureFields(pooling=pooling, layers=None if pooling is Pooling.POOLER else settings.encode_layers)
    feature = feature_of(fields, manifest, place="encode_")
    check_precision(settings.precision, manifest)
    state = State(settings, manifest, name, Metrics(share), feature, gpus_for(settings.device, manifest))
    state.metrics.describe_model(state.model_name, manifest)
    tracing = _tracing(settings)
    loaded = load(state, artifact, on_failure) if share else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if loaded is None:
            work = [load_then_serve(state, artifact, on_failure)]
        else:
            begin(state, loaded)
            work = [refresh(state.metrics), calibrate(state, loaded), watch(state, loaded, on_failure)]
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        yield
        for task in tasks:
            task.cancel()
        if state.engine is not None:
            state.engine.runner.stop()
            await asyncio.to_thread(state.engine.runner.join, JOIN_SECONDS)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPIOffline(
        redoc_url=None,
        title="Berth",
        version=__version__,
        description="Text in, vectors out: every representation of a BERT model over HTTP.",
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
    )
    app.state.berth = state
    add_error_handlers(app)
    routers = (*ROUTERS, *([service.figures] if settings.metrics_port is None else []))
    for router in routers:
        # For the documentation, where a key can then be entered; it is `Doors` that asks for one.
        is_open = router is service.health or (router is service.figures and settings.metrics_access == "open")
        key = [Depends(HTTPBearer(auto_error=False))] if settings.api_keys and not is_open else []
        app.include_router(
            router, dependencies=key, responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}
        )
    _add_middleware(app, state, routers, tracing)
    # What a web page of another origin is told has headers that the shedder knows nothing of.
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, EncoderRoute)]
    shapes = {} if settings.cors_origins else {route.path: route.error_shape for route in routes}
    app.state.shedder = Shedder(state, shapes)
    return app


def _add_middleware(app: FastAPI, state: State, routers: Sequence[APIRouter], tracing: "Tracing | None") -> None:
    """Add what a request meets before its route, the innermost first; what is not asked for is not there."""
    settings = state.settings
    routes = [route for router in routers for route in router.routes if isinstance(route, JsonRoute)]
    app.add_middleware(Shortcut, routes=routes)
    if settings.api_keys:
        app.add_middleware(Doors, settings=settings, shapes={route.path: route.error_shape for route in routes})
    if settings.cors_origins:
        add_cors(app, settings.cors_origins)
    if tracing is not None:
        app.add_middleware(tracing.middleware)
    app.add_middleware(Observe, state=state)


def create_metrics_app(state: State) -> FastAPI:
    """Make what a port of its own for health and metrics serves: nothing else, and that without keys."""
    app = FastAPI(title="Berth", docs_url=None, redoc_url=None, openapi_url=None, telemetry=NO_TELEMETRY)
    app.state.berth = state
    add_error_handlers(app)
    app.include_router(service.health)
    app.include_router(service.figures)
    app.add_middleware(Observe, state=state)
    return app


def _tracing(settings: Settings) -> "Tracing | None":
    """Begin to trace, where that is wanted; otherwise its packages are not even loaded."""
    if settings.tracing == "off":
        return None
    try:
        from service.api.tracing import Tracing  # noqa: PLC0415  # optional packages
    except ModuleNotFoundError as error:
        message = f"needs OpenTelemetry ({error.name} is missing): pip install '.[otel]' in Berth's folder"
        raise InvalidInputError("--tracing", message) from None
    return Tracing()
