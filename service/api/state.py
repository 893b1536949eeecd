"""What the routes share: one object on the application, set by `app.py`, read through `CurrentState`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request

from service.api.doors import holder_of
from service.errors import InvalidInputError, ModelNotFoundError, NotReadyError
from service.inference.artifact import Manifest
from service.inference.embedder import Embedded, Embedder
from service.inference.reading import Wish
from service.inference.runner import Runner
from service.inference.tokenizer import Tokenizer
from service.inference.types import Feature, Text
from service.inference.watch import Watch
from service.metrics import Metrics
from service.settings import Settings


@dataclass(slots=True)
class Engine:
    """What is there once the model is loaded and its probes agree."""

    tokenizer: Tokenizer
    encoders: Sequence[Watch]
    """One, or one a GPU."""
    runner: Runner
    embedder: Embedder
    calibrated: bool = False
    """Whether it was loaded with what is known to be fastest here."""

    @property
    def stalled(self) -> bool:
        """Whether an encoder takes far longer than usual."""
        return any(encoder.stalled for encoder in self.encoders)

    @property
    def hung(self) -> bool:
        """Whether an encoder hangs for good."""
        return any(encoder.hung for encoder in self.encoders)


@dataclass(slots=True)
class State:
    """The service, from its start to its end."""

    settings: Settings
    manifest: Manifest
    model_name: str
    metrics: Metrics
    encode_feature: Feature
    """What bert-as-service's route gives."""
    gpus: dict[int, str] = field(default_factory=dict)
    """Where the model runs, by number, with their names; none on the CPU."""
    engine: Engine | None = None
    draining: bool = False
    inside: int = 0
    """Requests that came and are not answered yet."""

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self.engine is not None and not self.draining and not self.engine.stalled

    def check_ready(self) -> None:
        """Raise `NotReadyError` where new requests should not be sent here."""
        engine = self.loaded()
        if self.draining:
            raise NotReadyError("the service is shutting down")
        if engine.stalled:
            raise NotReadyError("the encoder hangs: a batch takes far longer than usual")

    def check_alive(self) -> None:
        """Raise `NotReadyError` where a restart alone can help."""
        if self.engine is not None and self.engine.hung:
            raise NotReadyError("the encoder hangs for good")

    def loaded(self) -> Engine:
        """Give the engine, or raise `NotReadyError`; while draining, requests that still arrive are served."""
        if self.engine is None:
            raise NotReadyError("the model is being loaded")
        return self.engine

    def check_model(self, name: str | None) -> None:
        """Raise `ModelNotFoundError` where a request names another model."""
        if name is not None and name != self.model_name:
            raise ModelNotFoundError(f"this service has one model, {self.model_name}: name it, or leave `model` out")

    def prompted(self, texts: Sequence[Text], prompt_name: str | None) -> Sequence[Text]:
        """Put the named prompt, or the model's default where none is named, before each text; `""` is no prompt.

        Token ids, pairs and split texts stay as they are.
        """
        name = self.manifest.default_prompt_name if prompt_name is None else prompt_name
        if not name:
            return texts
        if name not in self.manifest.prompts:
            known = ", ".join(sorted(self.manifest.prompts)) or "none"
            raise InvalidInputError("prompt_name", f"the model has no such prompt; it has: {known}")
        if prompt_name is not None and not all(isinstance(text.value, str) for text in texts):
            raise InvalidInputError("prompt_name", "goes with texts, not with token ids, pairs or split texts")
        prompt = self.manifest.prompts[name]
        return [replace(text, prompt=prompt) if isinstance(text.value, str) else text for text in texts]

    async def embed(self, request: Request, texts: Sequence[Text], wish: Wish) -> Embedded:
        """Encode texts within the request's deadline, and leave on the request what headers, log and metrics tell."""
        holder = holder_of(request)
        charge = None if holder is None else holder.charge
        noted = request.scope["state"]
        embedded = await self.loaded().embedder.embed(texts, wish, deadline=noted["deadline"], charge=charge)
        noted["embedded"] = embedded
        return embedded


async def _state(request: Request) -> State:  # async, for FastAPI gives a plain function to a thread
    state: State = request.app.state.berth
    return state


CurrentState = Annotated[State, Depends(_state)]
