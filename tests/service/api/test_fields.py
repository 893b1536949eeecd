"""Texts, inputs, ids, truncation and features in the forms their callers write them in."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from berth.text.truncation import Combine
from berth.types import Pooling, SplitText, Text, TextPair, TokenIds
from service.api.fields import (
    FeatureFields,
    HeadCut,
    LayerWeights,
    Truncate,
    WindowCut,
    id_lists_of,
    ids_or_lists_of,
    inputs_of,
    texts_of,
    texts_or_ids_of,
)

TRUNCATE: TypeAdapter[Any] = TypeAdapter(Truncate)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([["a", "b"]], [TextPair("a", "b")]),
        ([{"tokens": ["a", "b"]}], [SplitText(["a", "b"])]),
        (["a", ["b", "c"], {"tokens": ["d"]}], ["a", TextPair("b", "c"), SplitText(["d"])]),
        ([""], [""]),  # its length is for the embedder to judge, which can report it
    ],
    ids=str,
)
def test_inputs(value: object, expected: list[object]) -> None:
    assert inputs_of(value) == [Text(f"inputs[{index}]", item) for index, item in enumerate(expected)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must not be empty"),
        ({"tokens": ["a"]}, "must be a list of inputs"),
        (3, "must be a list of inputs"),
        (None, "must be a list of inputs"),
        (["a", 3], "item 1 must be a string, a pair"),
        (["a", ["a"]], "item 1 must be a string, a pair"),
        ([["a", "b", "c"]], "item 0 must be a string, a pair"),
        ([["a", None]], "item 0 must be a string, a pair"),
        ([{"tokens": []}], "item 0 must be a string, a pair"),
        ([{"tokens": ["a", 1]}], "item 0 must be a string, a pair"),
        ([{"tokens": ["a"], "pair": ["b"]}], "item 0 must be a string, a pair"),
        ([{"words": ["a"]}], "item 0 must be a string, a pair"),
    ],
    ids=str,
)
def test_inputs_of_another_shape_are_refused(value: object, message: str) -> None:
    with pytest.raises(PydanticCustomError, match=message):
        inputs_of(value)


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (texts_of, [], "must not be empty"),
        (texts_of, 3, "must be a string or a list of strings"),
        (texts_of, ["a", 3], "item 1 must be a string"),
        (texts_of, [[101, 102]], "item 0 must be a string"),
        (texts_or_ids_of, ["a", [101]], "item 1 must be a string"),
        (texts_or_ids_of, [[101], "a"], "item 1 must be a list of token ids"),
        (texts_or_ids_of, [101, "a"], "must be a list of token ids"),
        (texts_or_ids_of, [101, 102.0], "must be a list of token ids"),
        (texts_or_ids_of, [True], "must be a list of token ids"),
        (texts_or_ids_of, [[]], "item 0 must be a list of token ids"),
        (texts_or_ids_of, [None], "must be a list of token ids"),
    ],
    ids=str,
)
def test_texts_of_another_shape_are_refused(read: Callable[[str, object], object], value: object, message: str) -> None:
    with pytest.raises(PydanticCustomError, match=message):
        read("input", value)


def test_single_texts_and_lists_are_told_apart() -> None:
    assert (texts_of("a", "x").single, texts_of("a", ["x"]).single) == (True, False)
    assert texts_or_ids_of("a", [1, 2]).texts == [Text("a", TokenIds([1, 2]))]
    assert texts_or_ids_of("a", [[1], [2]]).texts == [Text("a[0]", TokenIds([1])), Text("a[1]", TokenIds([2]))]
    assert (texts_or_ids_of("a", [1, 2]).single, texts_or_ids_of("a", [[1]]).single) == (True, False)


def test_ids() -> None:
    assert id_lists_of([[1], [2, 3]]) == [[1], [2, 3]]
    assert ids_or_lists_of([2, 3]) == [[2, 3]]
    assert ids_or_lists_of([[1], [2, 3]]) == [[1], [2, 3]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("end", "end"),
        ("middle", "middle"),
        ({"head": 3}, HeadCut(head=3)),
        ({}, WindowCut()),
        ({"window": 64, "stride": 5, "combine": "max"}, WindowCut(window=64, stride=5, combine=Combine.MAX)),
    ],
    ids=str,
)
def test_truncate(value: object, expected: object) -> None:
    assert TRUNCATE.validate_python(value) == expected


@pytest.mark.parametrize(
    ("value", "location"),
    [
        ("left", "<name>"),
        (None, "<name>"),
        ({"head": -1}, "<head> head"),
        ({"head": 1, "stride": 1}, "<head> stride"),
        ({"window": 0}, "<window> window"),
        ({"stride": True}, "<window> stride"),
        ({"combine": "sum"}, "<window> combine"),
        ({"size": 3}, "<window> size"),
    ],
    ids=str,
)
def test_error_of_truncate_speaks_of_what_was_meant(value: object, location: str) -> None:
    with pytest.raises(ValidationError) as error:
        TRUNCATE.validate_python(value)
    [details] = error.value.errors()
    assert " ".join(map(str, details["loc"])) == location


def test_feature_fields() -> None:
    fields = FeatureFields.model_validate(
        {"pooling": "max", "layers": [-1, 2], "merge": {"weights": [1, 0.5]}, "exclude_special": True}
    )
    assert (fields.pooling, fields.layers, fields.exclude_special) == (Pooling.MAX, [-1, 2], True)
    assert fields.merge == LayerWeights(weights=[1, 0.5])
    assert FeatureFields() == FeatureFields(pooling=None, layers=None, merge="concat", exclude_special=False)


@pytest.mark.parametrize("weights", [[], [float("nan")], [float("inf")], ["a"], None], ids=str)
def test_weights_are_finite_numbers_and_one_at_least(weights: object) -> None:
    with pytest.raises(ValidationError):
        FeatureFields.model_validate({"merge": {"weights": weights}})


def test_json_schemas_can_be_made() -> None:
    assert TRUNCATE.json_schema()
    assert FeatureFields.model_json_schema()["properties"].keys() == {"pooling", "layers", "merge", "exclude_special"}
