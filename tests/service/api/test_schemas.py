"""What the requests look like."""

from typing import Any

import pytest
from pydantic import ValidationError

from berth.types import Metric, TokenIds
from service.api.schemas import (
    DetokenizeRequest,
    EmbeddingsRequest,
    FeaturesRequest,
    SimilarityRequest,
    TokenizeRequest,
)


@pytest.mark.parametrize(
    ("value", "names", "values", "single"),
    [
        ("a", ["input"], ["a"], True),
        (["a"], ["input[0]"], ["a"], False),
        (["a", "b"], ["input[0]", "input[1]"], ["a", "b"], False),
        ([101, 102], ["input"], [TokenIds([101, 102])], True),
        ([[101, 102], [101, 5, 102]], ["input[0]", "input[1]"], [TokenIds([101, 102]), TokenIds([101, 5, 102])], False),
    ],
    ids=str,
)
def test_openais_input_in_all_its_forms(value: object, names: list[str], values: list[object], single: bool) -> None:
    parsed = EmbeddingsRequest.model_validate({"input": value}).input
    assert [text.name for text in parsed.texts] == names
    assert [text.value for text in parsed.texts] == values
    assert parsed.single == single


def test_defaults_are_openais() -> None:
    request = EmbeddingsRequest.model_validate({"input": "a", "unknown": 1})
    assert (request.model, request.encoding_format, request.dimensions) == (None, "float", None)
    assert (request.truncate, request.prompt_name) == (None, None)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (FeaturesRequest, {"inputs": "a"}),
        (SimilarityRequest, {"source": "a", "target": "b"}),
        (TokenizeRequest, {"inputs": "a"}),
        (DetokenizeRequest, {"ids": [[1]]}),
    ],
)
def test_native_requests_refuse_unknown_fields(model: Any, fields: dict[str, object]) -> None:
    model.model_validate(fields)
    with pytest.raises(ValidationError, match="invented"):
        model.model_validate(fields | {"invented": 1})


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "manhattan"])
def test_metrics_by_name(metric: str) -> None:
    request = SimilarityRequest.model_validate({"source": "a", "target": ["b"], "metric": metric})
    assert request.metric is Metric(metric)
    assert (request.source.single, request.target.single) == (True, False)


def test_json_schema_can_be_made() -> None:
    for model in (EmbeddingsRequest, FeaturesRequest, SimilarityRequest, TokenizeRequest, DetokenizeRequest):
        assert model.model_json_schema()["type"] == "object"
