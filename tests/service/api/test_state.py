"""What the routes share: the model's name, its prompts, its own feature."""

from typing import Any

import pytest

from service.api.state import State
from service.api.wishes import sentence_feature
from service.errors import InvalidInputError, ModelNotFoundError, NotReadyError
from service.inference.artifact import Artifact
from service.inference.types import Text, TokenIds
from service.metrics import Metrics
from service.settings import Settings

TEXTS = [Text("input[0]", "ship"), Text("input[1]", "boat")]
PROMPTS = {"query": "query: ", "passage": "passage: "}


def state(artifact: Artifact, **manifest: Any) -> State:
    amended = artifact.manifest.model_copy(update=manifest)
    return State(Settings(), amended, "tug", Metrics(), sentence_feature(amended))


@pytest.mark.parametrize(
    ("default", "asked", "texts"),
    [
        (None, None, ["ship", "boat"]),
        (None, "query", ["query: ship", "query: boat"]),
        ("query", None, ["query: ship", "query: boat"]),
        ("query", "passage", ["passage: ship", "passage: boat"]),
        ("query", "", ["ship", "boat"]),
    ],
)
def test_prompt_goes_before_each_text(
    artifact: Artifact, default: str | None, asked: str | None, texts: list[str]
) -> None:
    prompted = state(artifact, prompts=PROMPTS, default_prompt_name=default).prompted(TEXTS, asked)
    given = [(text.name, text.prompt + str(text.value)) for text in prompted]
    assert given == list(zip(["input[0]", "input[1]"], texts, strict=True))


def test_ids_take_no_prompt(artifact: Artifact) -> None:
    ids = [Text("input", TokenIds([101, 102]))]
    prompted = state(artifact, prompts=PROMPTS, default_prompt_name="query")
    assert list(prompted.prompted(ids, None)) == ids
    with pytest.raises(InvalidInputError, match="token ids") as error:
        prompted.prompted(ids, "query")
    assert error.value.param == "prompt_name"


@pytest.mark.parametrize(("prompts", "known"), [({}, "none"), (PROMPTS, "passage, query")])
def test_unknown_prompt_is_refused_with_the_known_ones(artifact: Artifact, prompts: dict[str, str], known: str) -> None:
    with pytest.raises(InvalidInputError, match=known) as error:
        state(artifact, prompts=prompts).prompted(TEXTS, "title")
    assert error.value.param == "prompt_name"


def test_model_may_be_left_out_or_named_rightly(artifact: Artifact) -> None:
    tug = state(artifact)
    tug.check_model(None)
    tug.check_model("tug")
    for name in ("", "Tug", "tug ", artifact.manifest.source.id):
        with pytest.raises(ModelNotFoundError, match="tug"):
            tug.check_model(name)


def test_not_ready_until_loaded(artifact: Artifact) -> None:
    with pytest.raises(NotReadyError):
        state(artifact).loaded()
    assert not state(artifact).ready
