"""From an artifact to an engine that serves, and what is done beside it for as long as it does."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from berth.artifact import Artifact
from berth.backends.cuda.calibration import CalibrationFile, best_budget, token_rates
from berth.backends.cuda.encoder import CudaEncoder
from berth.batching.cache import VectorCache
from berth.batching.worker import ModelLane
from berth.embedder import Embedder
from berth.errors import ArtifactError, DeviceError, EncoderError
from berth.features import sentence_width
from berth.model import Model
from service.api.state import Engine, ServedModel, State

CHECK_SECONDS = 0.2
"""Between two checks of whether the encoder hangs."""
CHECKS = 10
"""Consecutive checks before it counts as hung. More than one, because after SIGSTOP/SIGCONT every running batch looks
old once."""

LoadModel = Callable[[Artifact, Sequence[int], int | None], Model]
"""Loads an artifact on some GPUs, with a bound in bytes to what batches take of their memory."""

logger = logging.getLogger("berth")


async def load_then_serve(
    state: State, served: ServedModel, on_failure: Callable[[], None], load_model: LoadModel = Model.load
) -> None:
    """Load a model and check its golden vectors, then be ready; `on_failure` is called where it cannot be loaded."""
    try:
        engine = await asyncio.to_thread(load, state, served, load_model)
        state.worker.start()
    except Exception as error:
        logger.error("%s", error, exc_info=None if isinstance(error, ArtifactError | DeviceError) else error)
        on_failure()
        return
    served.engine = engine
    state.metrics.watch(
        queue_units=lambda: state.worker.queue.sequences,
        queue_tokens=lambda: state.worker.queue.tokens,
        max_queue_tokens=lambda: state.settings.max_queue_tokens,
        max_batch_tokens=lambda: engine.lane.max_batch_tokens,
        ready=lambda: state.ready,
    )
    logger.info("ready: %s, %s on %s", served.name, served.manifest.precision, served.manifest.target)
    await asyncio.gather(calibrate(state, served, engine), watchdog(state))


def load(state: State, served: ServedModel, load_model: LoadModel = Model.load) -> Engine:
    """Load a model, warm it up, and put tokenizer, lane and backends together.

    Raises `ArtifactError` and `DeviceError`.
    """
    settings, manifest = state.settings, served.manifest
    model = load_model(served.artifact, tuple(served.gpus), settings.gpu_memory_limit)
    known = _calibration(state, served).read() if served.gpus else None
    cache = VectorCache(settings.cache_size * sentence_width(manifest)) if settings.cache_size else None
    budget = settings.max_batch_tokens or known or model.max_batch_tokens
    lane = ModelLane(budget, manifest.max_tokens, model.backends, cache)
    model.warm_up(budget, state.worker.most_batches)
    return Engine(model, lane, Embedder(model, state.worker, lane, state.limits))


async def calibrate(state: State, served: ServedModel, engine: Engine) -> None:
    """Find on a GPU how large a batch should be, if it is not known; requests are answered all the while."""
    backend = engine.model.backends[0]
    if state.settings.max_batch_tokens is not None or not isinstance(backend, CudaEncoder):
        return
    file = _calibration(state, served)
    if file.read() is not None:
        return
    before = engine.lane.max_batch_tokens
    try:
        budget = best_budget(await asyncio.to_thread(token_rates, backend, served.manifest))
    except EncoderError as error:
        logger.warning("the calibration failed: %s", error)
        return
    if engine.lane.max_batch_tokens < before:  # a batch ran out of memory meanwhile
        return
    file.write(budget)
    engine.lane.max_batch_tokens = budget
    backend.trim()
    logger.info("calibrated: batches of %d tokens are fastest here", budget)


async def watchdog(state: State) -> None:
    """Log, count and remember when the encoder hangs: a batch runs longer than a request may take.

    A thread inside ONNX Runtime cannot be stopped; whoever asks `/health/live` has to replace the process.
    """
    checks = 0
    while True:
        checks = checks + 1 if state.worker.oldest_batch() > state.settings.request_timeout else 0
        if checks == CHECKS:
            state.hung = True
            state.metrics.stalls.inc()
            logger.critical("the encoder hangs: a batch has run longer than a request may take; restart this process")
        elif state.hung and not checks:
            state.hung = False
            logger.warning("the encoder hangs no more; ready again")
        await asyncio.sleep(CHECK_SECONDS)


def _calibration(state: State, served: ServedModel) -> CalibrationFile:
    return CalibrationFile(state.settings.cache_dir, served.manifest, list(served.gpus.values()))
