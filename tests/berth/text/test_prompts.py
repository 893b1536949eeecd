"""What a model wants to be put before a text."""

from typing import Any

import pytest

from berth.artifact import Artifact, Manifest
from berth.errors import InvalidInputError
from berth.text.prompts import prompted
from berth.types import Text, TokenIds

TEXTS = [Text("input[0]", "ship"), Text("input[1]", "boat")]
PROMPTS = {"query": "query: ", "passage": "passage: "}


def manifest_with(artifact: Artifact, **fields: Any) -> Manifest:
    return artifact.manifest.model_copy(update=fields)


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
    manifest = manifest_with(artifact, prompts=PROMPTS, default_prompt_name=default)
    given = [(text.name, text.prompt + str(text.value)) for text in prompted(manifest, TEXTS, asked)]
    assert given == list(zip(["input[0]", "input[1]"], texts, strict=True))


def test_ids_take_no_prompt(artifact: Artifact) -> None:
    ids = [Text("input", TokenIds([101, 102]))]
    manifest = manifest_with(artifact, prompts=PROMPTS, default_prompt_name="query")
    assert list(prompted(manifest, ids, None)) == ids
    with pytest.raises(InvalidInputError, match="token ids") as error:
        prompted(manifest, ids, "query")
    assert error.value.param == "prompt_name"


@pytest.mark.parametrize(("prompts", "known"), [({}, "none"), (PROMPTS, "passage, query")])
def test_unknown_prompt_is_refused_with_the_known_ones(artifact: Artifact, prompts: dict[str, str], known: str) -> None:
    with pytest.raises(InvalidInputError, match=known) as error:
        prompted(manifest_with(artifact, prompts=prompts), TEXTS, "title")
    assert error.value.param == "prompt_name"
