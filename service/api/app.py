"""The composition root: puts settings, model, queue and routes together, starts them and stops them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from service import __version__
from service.api.cors import add_cors
from service.api.doors import Doors
from service.api.errors import ErrorBody, add_error_handlers
from service.api.fields import FeatureFields
from service.api.middleware import Observe
from service.api.requests import EncoderRoute, JsonRoute
from service.api.routes import bert_as_service, embeddings, features, page, service, similarity, tei, tokens
from service.api.shedder import Shedder
from service.api.state import Engine, State
from service.api.wishes import feature_of
from service.cores import available_cores
from service.errors import ArtifactError, DeviceError, EncoderError, InvalidInputError
from service.inference.artifact import Artifact, Target
from service.inference.cache import VectorCache
from service.inference.calibration import CalibrationFile, best_budget, token_rates
from service.inference.cuda_encoder import CudaEncoder, open_cuda_encoder
from service.inference.embedder import Embedder, Limits
from service.inference.encoder import CpuEncoder
from service.inference.probes import check_probes
from service.inference.runner import Encode, Runner
from service.inference.scheduler import Scheduler
from service.inference.tokenizer import Tokenizer
from service.inference.types import Pooling
from service.inference.watch import Watch
from service.metrics import Metrics, Share
from service.placement import gpus_for
from service.settings import Settings

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from service.api.tracing import Tracing

JOIN_SECONDS = 5.0
"""What an encoder thread has at the end to finish its batch; the queue is empty by then."""

FIRST_BUDGET: dict[Target, int] = {"cpu": 256, "cuda": 8192}
"""Tokens in a batch before the calibration has said what is best."""
CALIBRATION_SECONDS: dict[Target, float] = {"cpu": 1.0, "cuda": 3.0}

THREADS_PER_GPU = 2
"""One has its batch run, the other packs and copies the next one."""

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

REFRESH_SECONDS = 0.2
"""How old a worker's queue depth, readiness and memory may be on the page of another."""

WATCH_SECONDS = 0.2
"""Between two looks at whether the encoder hangs."""

logger = logging.getLogger("berth")


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
    state = State(settings, manifest, name, Metrics(share), feature, gpus_for(settings.device, manifest))
    state.metrics.describe_model(state.model_name, manifest)
    tracing = _tracing(settings)
    loaded = _engine(state, artifact, on_failure) if share else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if loaded is None:
            work = [_load(state, artifact, on_failure)]
        else:
            _begin(state, loaded)
            work = [_refresh(state.metrics), _calibrate(state, loaded), _watch(state, loaded, on_failure)]
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
        app.include_router(router, responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}})
    _add_middleware(app, state, routers, tracing)
    # What a web page of another origin is told has headers that the shedder knows nothing of.
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, EncoderRoute)]
    shapes = {} if settings.cors_origins else {route.path: route.error_shape for route in routes}
    app.state.shedder = Shedder(state, shapes)
    return app


def _add_middleware(app: FastAPI, state: State, routers: Sequence[APIRouter], tracing: "Tracing | None") -> None:
    """Add what a request meets before its route, the innermost first; what is not asked for is not there."""
    settings = state.settings
    if settings.api_keys:
        routes = [route for router in routers for route in router.routes if isinstance(route, JsonRoute)]
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
        message = f"needs OpenTelemetry ({error.name} is missing): pip install 'berth-embeddings[otel]'"
        raise InvalidInputError("--tracing", message) from None
    return Tracing()


async def _load(state: State, artifact: Artifact, on_failure: Callable[[], None]) -> None:
    """Load the model and replay its probes, then be ready."""
    try:
        engine = await asyncio.to_thread(_engine, state, artifact, on_failure)
    except Exception as error:
        logger.error("%s", error, exc_info=None if isinstance(error, ArtifactError | DeviceError) else error)
        on_failure()
        return
    _begin(state, engine)
    await asyncio.gather(_calibrate(state, engine), _watch(state, engine))


def _begin(state: State, engine: Engine) -> None:
    """Be ready."""
    engine.runner.start()
    state.metrics.watch(
        units=lambda: engine.runner.queued_units,
        tokens=lambda: engine.runner.queued_tokens,
        max_queue_tokens=lambda: state.settings.max_queue_tokens,
        max_batch_tokens=lambda: engine.runner.max_batch_tokens,
        ready=lambda: state.ready,
    )
    state.engine = engine
    logger.info("ready: %s, %s on %s", state.model_name, state.manifest.precision, state.manifest.target)


async def _calibrate(state: State, engine: Engine) -> None:
    """Find the batches' best size, if it is not set or known; requests are answered all the while."""
    file = _calibration(state)
    if state.settings.max_batch_tokens is not None or file.read() is not None:
        return
    encode = engine.encoders[0].encode
    seconds = CALIBRATION_SECONDS[state.manifest.target]
    try:
        rates = await asyncio.to_thread(token_rates, encode, state.manifest, seconds)
    except EncoderError as error:
        logger.warning("the calibration failed: %s", error)
        return
    budget = best_budget(rates)
    engine.runner.max_batch_tokens = budget
    if isinstance(encode, CudaEncoder):
        encode.trim()
    file.write(budget)
    logger.info("calibrated: batches of %d tokens", budget)


async def _watch(state: State, engine: Engine, on_hang: Callable[[], None] = lambda: None) -> None:
    """Log and count when the encoder hangs; `on_hang` is called where there is no hope that it goes on.

    A process of its own is then left to whoever asks `/health/live`; a worker has to end, for the supervisor asks
    nothing, and a probe comes to any of the workers.
    """
    stalled = False
    while not engine.hung:
        if engine.stalled != stalled:
            stalled = not stalled
            if stalled:
                logger.error("the encoder hangs: a batch takes ten times longer than usual; not ready until it ends")
                state.metrics.count_stall()
            else:
                logger.warning("the encoder hangs no more; ready again")
        await asyncio.sleep(WATCH_SECONDS)
    logger.critical("the encoder hangs for good: this process must be replaced")
    on_hang()


async def _refresh(metrics: Metrics) -> None:
    """Keep up to date what other workers show of this one."""
    while True:
        metrics.refresh()
        await asyncio.sleep(REFRESH_SECONDS)


def _engine(state: State, artifact: Artifact, on_failure: Callable[[], None]) -> Engine:
    settings, manifest = state.settings, artifact.manifest
    tokenizer = Tokenizer(
        artifact.tokenizer,
        max_tokens=manifest.max_tokens,
        vocab_size=manifest.vocab_size,
        type_vocab_size=manifest.type_vocab_size,
    )
    encoders = [Watch(encode, patience=settings.request_timeout) for encode in _encoders(state, artifact)]
    for encode in encoders:
        check_probes(artifact, encode)
    on_cpu = manifest.target == "cpu"
    runner = Runner(
        encoders,
        Scheduler(settings.max_batch_tokens or _calibration(state).read() or FIRST_BUDGET[manifest.target]),
        threads=settings.threads or (available_cores(settings.workers) if on_cpu else THREADS_PER_GPU),
        longest=manifest.max_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        cache=VectorCache(settings.cache_size),
        on_batch=state.metrics.count_batch,
        on_lost=on_failure,
    )
    limits = Limits(
        settings.max_texts, settings.max_text_chars, settings.max_reply_numbers, tokens=settings.max_request_tokens
    )
    return Engine(tokenizer, encoders, runner, Embedder(tokenizer, runner, manifest, limits))


def _encoders(state: State, artifact: Artifact) -> Sequence[Encode]:
    """Load the model: once for all cores, or once a GPU."""
    if artifact.manifest.target == "cpu":
        return [CpuEncoder(artifact)]
    return [open_cuda_encoder(artifact, index, state.settings.gpu_memory_limit) for index in state.gpus]


def _calibration(state: State) -> CalibrationFile:
    return CalibrationFile(state.settings.cache_dir, state.manifest, list(state.gpus.values()))
