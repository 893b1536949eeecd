"""What the routes share: the models by their names, and whether requests should come."""

from dataclasses import replace
from typing import Any, cast

import pytest

from berth.artifact import Artifact
from berth.batching.admission import Limits
from berth.batching.worker import Worker
from berth.errors import ModelNotFoundError, NotReadyError
from berth.types import Pooling, ResolvedFeature
from service.api.state import Engine, ServedModel, State
from service.metrics import Metrics
from service.settings import Settings

ENCODE = ResolvedFeature(Pooling.MEAN, (5,))


def served(artifact: Artifact, name: str = "tug", **manifest: Any) -> ServedModel:
    amended = replace(artifact, manifest=artifact.manifest.model_copy(update=manifest))
    return ServedModel(name, amended, ENCODE)


def state_of(*models: ServedModel) -> State:
    limits, worker = Limits(1, 1, 1), Worker(threads=1, max_queue_tokens=1)
    return State(Settings(), Metrics(), limits, {model.name: model for model in models}, worker)


def test_sentence_feature_is_the_models_own(artifact: Artifact) -> None:
    assert served(artifact).sentence_feature == ResolvedFeature(Pooling.MEAN, (6,), normalize=True)
    other = served(artifact, pooling=Pooling.CLS, normalize=False, layers=3)
    assert other.sentence_feature == ResolvedFeature(Pooling.CLS, (3,))


def test_models_own_cls_is_the_first_token_whatever_the_frame(artifact: Artifact) -> None:
    model = served(artifact, pooling=Pooling.CLS, frame=replace(artifact.manifest.frame, cls=None))
    assert model.sentence_feature.pooling is Pooling.CLS


def test_model_may_be_left_out_or_named_rightly(artifact: Artifact) -> None:
    tug = served(artifact)
    state = state_of(tug)
    assert state.model() is state.model(None) is state.model("tug") is tug
    for name in ("", "Tug", "tug ", artifact.manifest.source.id):
        with pytest.raises(ModelNotFoundError, match="tug"):
            state.model(name)


def test_not_ready_until_loaded(artifact: Artifact) -> None:
    tug = served(artifact)
    state = state_of(tug)
    with pytest.raises(NotReadyError, match="is being loaded"):
        tug.loaded()
    with pytest.raises(NotReadyError, match="is being loaded"):
        state.check_ready()
    assert not state.ready
    state.check_alive()


@pytest.mark.parametrize(
    ("draining", "hung", "message"),
    [(False, False, None), (True, False, "shutting down"), (False, True, "hangs"), (True, True, "shutting down")],
)
def test_ready_while_neither_draining_nor_hung(
    artifact: Artifact, draining: bool, hung: bool, message: str | None
) -> None:
    tug = served(artifact)
    tug.engine = engine = cast("Engine", object())
    state = state_of(tug)
    state.draining, state.hung = draining, hung
    assert tug.loaded() is engine, "what still arrives is served"
    assert state.ready is (message is None)
    if message is None:
        state.check_ready()
    else:
        with pytest.raises(NotReadyError, match=message):
            state.check_ready()
    if hung:
        with pytest.raises(NotReadyError, match="hangs"):
            state.check_alive()
    else:
        state.check_alive()
