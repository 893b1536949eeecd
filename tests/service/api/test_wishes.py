"""From a request's fields to what the model is asked; tests/end_to_end/test_refusals.py has the errors as they read."""

from typing import Any

import pytest

from service.api.fields import FeatureFields, HeadCut, WindowCut
from service.api.wishes import check_dimensions, feature_of, sentence_feature, truncation_of
from service.errors import InvalidInputError
from service.inference.artifact import Artifact
from service.inference.truncation import Combine, Cut, Truncation
from service.inference.types import Feature, Merge, Pooling


def feature(artifact: Artifact, fields: dict[str, Any], **manifest: Any) -> Feature:
    return feature_of(FeatureFields.model_validate(fields), artifact.manifest.model_copy(update=manifest), place="f.")


def test_sentence_feature_is_the_models_own(artifact: Artifact) -> None:
    assert sentence_feature(artifact.manifest) == Feature(Pooling.MEAN, (6,), normalize=True)
    amended = artifact.manifest.model_copy(update={"pooling": Pooling.CLS, "normalize": False, "layers": 3})
    assert sentence_feature(amended) == Feature(Pooling.CLS, (3,))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Feature(Pooling.MEAN, (6,))),
        ({"pooling": "cls"}, Feature(Pooling.CLS, (6,))),
        ({"pooling": "pooler"}, Feature(Pooling.POOLER, (6,))),
        ({"layers": [0, 6, -2, -6]}, Feature(Pooling.MEAN, (0, 6, 5, 1))),
        ({"layers": [-2, -1], "merge": "sum"}, Feature(Pooling.MEAN, (5, 6), Merge.SUM)),
        ({"layers": [3, 1], "merge": {"weights": [1, -0.5]}}, Feature(Pooling.MEAN, (3, 1), Merge.WEIGHTS, (1, -0.5))),
        ({"merge": {"weights": [2]}}, Feature(Pooling.MEAN, (6,), Merge.WEIGHTS, (2,))),
        ({"pooling": "none", "exclude_special": True}, Feature(Pooling.NONE, (6,), exclude_special=True)),
    ],
    ids=str,
)
def test_feature(artifact: Artifact, fields: dict[str, Any], expected: Feature) -> None:
    assert feature(artifact, fields) == expected


def test_normalize_is_the_routes_to_say(artifact: Artifact) -> None:
    assert feature_of(FeatureFields(), artifact.manifest, normalize=True) == Feature(Pooling.MEAN, (6,), normalize=True)


@pytest.mark.parametrize(
    ("fields", "manifest", "param"),
    [
        ({"layers": [0, 7]}, {}, "f.layers[1]"),
        ({"layers": [-8]}, {}, "f.layers[0]"),
        ({"layers": [3]}, {"layers": 2}, "f.layers[0]"),
        ({"merge": {"weights": [1, 2]}}, {}, "f.merge.weights"),
        ({"pooling": "pooler"}, {"has_pooler": False}, "f.pooling"),
        ({}, {"has_pooler": False, "pooling": Pooling.POOLER}, "f.pooling"),
        ({"pooling": "pooler", "layers": [-1]}, {}, "f.layers"),
        ({"pooling": "pooler", "merge": "mean"}, {}, "f.merge"),
        ({"pooling": "pooler", "exclude_special": True}, {}, "f.exclude_special"),
        ({"pooling": "cls", "exclude_special": True}, {}, "f.exclude_special"),
        ({"exclude_special": True}, {"pooling": Pooling.CLS}, "f.exclude_special"),
    ],
    ids=str,
)
def test_what_the_model_cannot_give_is_named(
    artifact: Artifact, fields: dict[str, Any], manifest: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidInputError) as error:
        feature(artifact, fields, **manifest)
    assert error.value.param == param


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("end", Truncation(Cut.END)),
        ("start", Truncation(Cut.START)),
        ("middle", Truncation(Cut.MIDDLE)),
        ("error", Truncation(Cut.ERROR)),
        (HeadCut(head=0), Truncation(Cut.MIDDLE, head=0)),
        (HeadCut(head=254), Truncation(Cut.MIDDLE, head=254)),
        (WindowCut(), Truncation(Cut.WINDOW, window=256, stride=254)),
        (WindowCut(window=3), Truncation(Cut.WINDOW, window=3, stride=1)),
        (WindowCut(stride=9), Truncation(Cut.WINDOW, window=256, stride=9)),
        (
            WindowCut(window=64, stride=62, combine=Combine.MAX),
            Truncation(Cut.WINDOW, window=64, stride=62, combine=Combine.MAX),
        ),
    ],
    ids=str,
)
def test_truncation(artifact: Artifact, field: Any, expected: Truncation) -> None:
    assert truncation_of(field, artifact.manifest) == expected


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (HeadCut(head=255), "truncate.head"),
        (WindowCut(window=257), "truncate.window"),
        (WindowCut(window=2), "truncate.window"),
        (WindowCut(window=64, stride=63), "truncate.stride"),
        (WindowCut(stride=255), "truncate.stride"),
    ],
    ids=str,
)
def test_truncation_beyond_the_model_is_named(artifact: Artifact, field: Any, param: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        truncation_of(field, artifact.manifest)
    assert error.value.param == param


def test_dimensions_are_at_most_the_vectors(artifact: Artifact) -> None:
    check_dimensions(None, artifact.manifest)
    check_dimensions(384, artifact.manifest)
    with pytest.raises(InvalidInputError, match="dimensions: must be at most 384, not 385"):
        check_dimensions(385, artifact.manifest)
