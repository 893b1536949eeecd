"""What the routes share: the service and its models, one object on the application, read through `CurrentState`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from berth.artifact import Artifact, Manifest
from berth.batching.admission import Limits
from berth.batching.worker import ModelLane, Worker
from berth.embedder import Embedded, Embedder
from berth.errors import ModelNotFoundError, NotReadyError, OverloadedError
from berth.features import sentence_feature
from berth.model import Model
from berth.text.prepared import EncodeOptions
from berth.text.prompts import prompted
from berth.text.truncation import Truncation, truncation_of
from berth.types import ResolvedFeature, Text
from service.api.exchange import Exchange
from service.api.fields import HeadCut, WindowCut
from service.metrics import Metrics
from service.settings import Settings


@dataclass(slots=True)
class Engine:
    """What is there of a model once it is loaded and its golden vectors agree."""

    model: Model
    lane: ModelLane
    embedder: Embedder


@dataclass(slots=True)
class ServedModel:
    """A model under its name in the API."""

    name: str
    artifact: Artifact
    encode_feature: ResolvedFeature
    """What bert-as-service's route gives."""
    gpus: dict[int, str] = field(default_factory=dict)
    """Where it runs, by number, with their names; none on the CPU."""
    engine: Engine | None = None
    manifest: Manifest = field(init=False)
    sentence_feature: ResolvedFeature = field(init=False)
    truncation: Truncation = field(init=False)
    """What the model does with a long text where the request says nothing."""

    def __post_init__(self) -> None:
        """Take what is asked for with every request out of the artifact."""
        self.manifest = self.artifact.manifest
        self.sentence_feature = sentence_feature(self.manifest)
        self.truncation = truncation_of(None, self.manifest)

    def loaded(self) -> Engine:
        """Give the engine, or raise `NotReadyError`; while draining, requests that still arrive are served."""
        if self.engine is None:
            raise NotReadyError("the model is being loaded")
        return self.engine

    async def embed(
        self,
        request: Request,
        texts: Sequence[Text],
        features: Sequence[ResolvedFeature],
        truncate: str | HeadCut | WindowCut | None = None,
        *,
        prompt_name: str | None = None,
        table: bool = False,
        report: bool = False,
        limited: str | None = None,
    ) -> Embedded:
        """Encode texts within the request's deadline, and leave on the request what headers, log and metrics tell.

        Raises what `truncation_of`, `prompted` and `Embedder.embed` raise.
        """
        truncation = self.truncation
        if truncate is not None:
            fields = truncate if isinstance(truncate, str) else truncate.model_dump()
            truncation = truncation_of(fields, self.manifest)
        if prompt_name is not None or self.manifest.default_prompt_name is not None:
            texts = prompted(self.manifest, texts, prompt_name)
        exchange: Exchange = request.state.exchange
        rate_limit = None if exchange.api_key is None else exchange.api_key.rate_limit
        embedded = await self.loaded().embedder.embed(
            texts,
            EncodeOptions(tuple(features), truncation, table, report, limited),
            deadline=exchange.deadline,
            charge=None if rate_limit is None else rate_limit.take,
        )
        exchange.embedded = embedded
        return embedded


@dataclass(slots=True)
class State:
    """The service, from its start to its end."""

    settings: Settings
    metrics: Metrics
    limits: Limits
    models: dict[str, ServedModel]  # by their names; at present there is one
    worker: Worker
    draining: bool = False
    hung: bool = False
    """Whether a batch has run longer than a request may take."""
    inside: int = 0
    """Requests for the encoder that were let in and are not answered yet."""

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return not (self.draining or self.hung) and all(model.engine is not None for model in self.models.values())

    def check_ready(self) -> None:
        """Raise `NotReadyError` where new requests should not be sent here."""
        for model in self.models.values():
            model.loaded()
        if self.draining:
            raise NotReadyError("the service is shutting down")
        self.check_alive()

    def check_alive(self) -> None:
        """Raise `NotReadyError` where a restart alone can help."""
        if self.hung:
            raise NotReadyError("the encoder hangs: a batch has run longer than a request may take")

    def overload(self) -> OverloadedError | None:
        """Say why a request that would use the encoder is to be refused before it is read, if it is."""
        expected = max(0, self.inside - self.worker.requests)
        return self.worker.admission.overload(self.settings.request_timeout, expected=expected)

    def model(self, name: str | None = None) -> ServedModel:
        """Give the model that a request names, or the only one; raises `ModelNotFoundError`."""
        if name in self.models:
            return self.models[name]
        [only] = self.models.values()
        if name is not None:
            raise ModelNotFoundError(f"this service has one model, {only.name}: name it, or leave `model` out")
        return only


async def _state(request: Request) -> State:  # async, for FastAPI gives a plain function to a thread
    state: State = request.app.state.berth
    return state


CurrentState = Annotated[State, Depends(_state)]
