"""What the service says of itself: models, info, health and metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from berth import __version__
from berth.features import sentence_width
from service.api.answers import InfoAnswer, ModelAnswer, ModelsAnswer, StatusAnswer, responses_of
from service.api.replies import json_reply
from service.api.state import CurrentState

router = APIRouter(tags=["service"])
health = APIRouter(tags=["service"])
metrics_router = APIRouter(tags=["service"])


@router.get("/v1/models", summary="The model that is served", responses=responses_of(ModelsAnswer))
async def models(state: CurrentState) -> Response:
    """List the one model, as OpenAI's API does."""
    return json_reply({"object": "list", "data": [_model(name) for name in state.models]})


@router.get("/v1/models/{name:path}", summary="The model by its name", responses=responses_of(ModelAnswer))
async def model(name: str, state: CurrentState) -> Response:
    """Describe the model; its name may hold a slash."""
    return json_reply(_model(state.model(name).name))


@router.get("/info", summary="The model and the limits", responses=responses_of(InfoAnswer))
async def info(state: CurrentState) -> Response:
    """Give text-embeddings-inference's fields and Berth's own."""
    model, settings = state.model(), state.settings
    manifest, engine = model.manifest, model.engine
    return json_reply(
        {
            "model_id": model.name,
            "model_sha": None,
            "model_dtype": {"fp32": "float32", "fp16": "float16", "int8": "int8"}[manifest.precision],
            "model_type": {"embedding": {"pooling": manifest.pooling}},
            "max_concurrent_requests": None,
            "max_input_length": manifest.max_tokens,
            "max_batch_tokens": engine.lane.max_batch_tokens if engine else settings.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": settings.max_texts,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": __version__,
            "sha": None,
            "docker_label": None,
            "source": manifest.source.id,
            "family": manifest.family,
            "layers": manifest.layers,
            "hidden_size": manifest.hidden_size,
            "width": sentence_width(manifest),
            "vocab_size": manifest.vocab_size,
            "truncation_side": manifest.tokenizer.truncation_side,
            "has_pooler": manifest.has_pooler,
            "further_poolings": manifest.further_poolings,
            "include_prompt": manifest.include_prompt,
            "projection": [layer.model_dump() for layer in manifest.projection],
            "normalize": manifest.normalize,
            "truncate_dim": manifest.truncate_dim,
            "similarity": manifest.similarity,
            "prompts": sorted(manifest.prompts),
            "target": manifest.target,
            "precision": manifest.precision,
            "weight_bits": manifest.weight_bits,
            "verification": manifest.verification,
            "max_queue_tokens": settings.max_queue_tokens,
            "max_text_chars": settings.max_text_chars,
            "max_body_bytes": settings.max_body_bytes,
            "request_timeout": settings.request_timeout,
        }
    )


@health.head("/health/live", include_in_schema=False)
@health.get("/health/live", summary="Whether the process answers", responses=responses_of(StatusAnswer))
async def live(state: CurrentState) -> Response:
    """Answer 200 as long as the event loop runs; 503 where the encoder hangs for good, and only a restart can help."""
    state.check_alive()
    return json_reply({"status": "live"})


@health.head("/health", include_in_schema=False)
@health.head("/health/ready", include_in_schema=False)
@health.get("/health", summary="Whether to send requests here", include_in_schema=False)
@health.get("/health/ready", summary="Whether to send requests here", responses=responses_of(StatusAnswer))
async def ready(state: CurrentState) -> Response:
    """Answer 200 once the model is loaded and its golden vectors agree.

    503 before that, while the encoder hangs, and during shutdown.
    """
    state.check_ready()
    return json_reply({"status": "ready"})


@metrics_router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(state: CurrentState) -> Response:
    """Give the metrics in Prometheus' text format."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "berth"}
