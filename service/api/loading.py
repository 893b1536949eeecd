"""From an artifact to an engine that serves, and what is done beside it for as long as it does."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from service.api.state import Engine, State
from service.cores import available_cores, on_one_core
from service.errors import ArtifactError, DeviceError, EncoderError
from service.inference.artifact import Artifact, Manifest, Target
from service.inference.cache import VectorCache
from service.inference.calibration import (
    USUAL_BUDGET,
    Calibration,
    CalibrationFile,
    best_budget,
    short_graph_pays,
    token_rates,
)
from service.inference.cuda_encoder import CudaEncoder, open_cuda_encoder
from service.inference.embedder import Embedder, Limits
from service.inference.encoder import CpuEncoder, open_cpu_encoder
from service.inference.probes import check_probes
from service.inference.rehearsal import rehearse
from service.inference.runner import BatchReport, Encode, Runner
from service.inference.scheduler import Scheduler
from service.inference.tokenizer import Tokenizer
from service.inference.watch import Watch
from service.metrics import Metrics

CALIBRATION_SECONDS: dict[Target, float] = {"cpu": 0.75, "cuda": 3.0}
"""For the size of batches."""

THREADS_PER_GPU = 2
"""Of each kind: one has its batch run, the other packs and copies the next one."""

REFRESH_SECONDS = 0.2
"""How old a worker's queue depth, readiness and memory may be on the page of another."""

WATCH_SECONDS = 0.2
"""Between two looks at whether the encoder hangs."""
HOPELESS_LOOKS = 10
"""In a row, until there is no hope for it: a process that was paused as a whole finds its batches old, and goes on."""

logger = logging.getLogger("berth")


async def load_then_serve(state: State, artifact: Artifact, on_failure: Callable[[], None]) -> None:
    """Load the model and replay its probes, then be ready."""
    try:
        engine = await asyncio.to_thread(load, state, artifact, on_failure)
        begin(state, engine)
    except Exception as error:
        logger.error("%s", error, exc_info=None if isinstance(error, ArtifactError | DeviceError) else error)
        on_failure()
        return
    await asyncio.gather(calibrate(state, engine), watch(state, engine))


def begin(state: State, engine: Engine) -> None:
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


async def calibrate(state: State, engine: Engine) -> None:
    """Find what is fastest here, if it was not known; requests are answered all the while."""
    if engine.calibrated:
        return
    watched, runner, wanted = engine.encoders[0], engine.runner, state.settings.max_batch_tokens
    try:
        found = await asyncio.to_thread(_find, _calibration(state), watched.encode, state.manifest, wanted)
    except EncoderError as error:
        logger.warning("the calibration failed: %s", error)
        return
    if isinstance(watched.encode, CpuEncoder) and not found.short_graph:
        watched.encode = watched.encode.without_short_graph()
    if wanted is not None:
        return
    runner.max_batch_tokens = found.max_batch_tokens
    logger.info("calibrated: batches of %d tokens are fastest here", found.max_batch_tokens)
    if isinstance(watched.encode, CudaEncoder):
        watched.encode.trim()
    else:
        await asyncio.to_thread(_rehearse, watched.encode, state.manifest, runner)


def _find(file: CalibrationFile, encode: Encode, manifest: Manifest, wanted: int | None) -> Calibration:
    """Read what another worker has found by now, or measure it; of a budget that is set nothing is measured or kept.

    Raises what the encoder raises.
    """
    if (found := file.read()) is not None:
        return found
    short_graph = isinstance(encode, CpuEncoder) and short_graph_pays(encode, manifest)
    if wanted is not None:
        return Calibration(max_batch_tokens=wanted, short_graph=short_graph)
    rates = token_rates(encode, manifest, CALIBRATION_SECONDS[manifest.target])
    found = Calibration(max_batch_tokens=best_budget(rates, USUAL_BUDGET[manifest.target]), short_graph=short_graph)
    file.write(found)
    return found


async def watch(state: State, engine: Engine, on_hang: Callable[[], None] = lambda: None) -> None:
    """Log and count when the encoder hangs; `on_hang` is called where there is no hope that it goes on.

    A process of its own is then left to whoever asks `/health/live`; a worker has to end, for the supervisor asks
    nothing, and a probe comes to any of the workers.
    """
    stalled, looks = False, 0
    while True:
        looks = looks + 1 if engine.hung else 0
        if looks == HOPELESS_LOOKS:
            logger.critical("the encoder hangs for good: this process must be replaced")
            on_hang()
        if engine.stalled != stalled:
            stalled = not stalled
            if stalled:
                logger.error("the encoder hangs: a batch takes sixty times longer than usual; not ready until it ends")
                state.metrics.count_stall()
            else:
                logger.warning("the encoder hangs no more; ready again")
        await asyncio.sleep(WATCH_SECONDS)


async def refresh(metrics: Metrics) -> None:
    """Keep up to date what other workers show of this one."""
    while True:
        metrics.refresh()
        await asyncio.sleep(REFRESH_SECONDS)


def load(state: State, artifact: Artifact, on_failure: Callable[[], None]) -> Engine:
    """Load the model, replay its probes, rehearse, and put tokenizer, queue and encoder together.

    Raises `ArtifactError` and `DeviceError`; `on_failure` is called where the device fails for good later.
    """
    settings, manifest = state.settings, artifact.manifest
    tokenizer = Tokenizer(
        artifact.tokenizer,
        max_tokens=manifest.max_tokens,
        vocab_size=manifest.vocab_size,
        type_vocab_size=manifest.type_vocab_size,
    )
    known = _calibration(state).read()
    encoders = [Watch(encode, patience=settings.request_timeout) for encode in _encoders(state, artifact, known)]
    for encode in encoders:
        check_probes(artifact, encode)

    def on_batch(report: BatchReport) -> None:
        if report.lost:
            on_failure()
        state.metrics.count_batch(report)

    on_cpu = manifest.target == "cpu"
    budget = settings.max_batch_tokens or (known and known.max_batch_tokens)
    runner = Runner(
        encoders,
        Scheduler(budget or USUAL_BUDGET[manifest.target]),
        threads=settings.threads or (available_cores(settings.workers) if on_cpu else THREADS_PER_GPU),
        longest=manifest.max_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        cache=VectorCache(settings.cache_size * manifest.hidden_size),
        on_batch=on_batch,
        one_core=on_cpu and on_one_core(),
    )
    if on_cpu and budget:
        _rehearse(encoders[0].encode, manifest, runner)
    limits = Limits(
        settings.max_texts, settings.max_text_chars, settings.max_reply_numbers, tokens=settings.max_request_tokens
    )
    return Engine(tokenizer, encoders, runner, Embedder(tokenizer, runner, manifest, limits), known is not None)


def _rehearse(encode: Encode, manifest: Manifest, runner: Runner) -> None:
    try:
        rehearse(encode, manifest, runner.max_batch_tokens, runner.most_batches)
    except (EncoderError, RuntimeError) as error:  # the latter where a thread cannot be started
        logger.warning("the largest batches fail: %s", error)


def _encoders(state: State, artifact: Artifact, known: Calibration | None) -> Sequence[Encode]:
    """Load the model: once for all cores, or once a GPU."""
    if artifact.manifest.target == "cpu":
        return [open_cpu_encoder(artifact, short_graph=known is None or known.short_graph)]
    return [open_cuda_encoder(artifact, index, state.settings.gpu_memory_limit) for index in state.gpus]


def _calibration(state: State) -> CalibrationFile:
    return CalibrationFile(state.settings.cache_dir, state.manifest, list(state.gpus.values()))
