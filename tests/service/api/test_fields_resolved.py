"""From a request's fields to what the model is asked; tests/end_to_end/test_refusals.py has the errors as they read."""

from typing import Any

import pytest

from berth.artifact import Artifact
from berth.errors import InvalidInputError
from berth.text.truncation import Combine, Cut, Truncation, truncation_of
from berth.types import Merge, Pooling, ResolvedFeature
from service.api.fields import FeatureFields, HeadCut, WindowCut


def feature(artifact: Artifact, fields: dict[str, Any], **manifest: Any) -> ResolvedFeature:
    return FeatureFields.model_validate(fields).resolve(artifact.manifest.model_copy(update=manifest), place="f.")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ResolvedFeature(Pooling.MEAN, (6,))),
        ({"pooling": "cls"}, ResolvedFeature(Pooling.CLS, (6,))),
        ({"pooling": "pooler"}, ResolvedFeature(Pooling.POOLER, (6,))),
        ({"layers": [0, 6, -2, -6]}, ResolvedFeature(Pooling.MEAN, (0, 6, 5, 1))),
        ({"layers": [-2, -1], "merge": "sum"}, ResolvedFeature(Pooling.MEAN, (5, 6), Merge.SUM)),
        (
            {"layers": [3, 1], "merge": {"weights": [1, -0.5]}},
            ResolvedFeature(Pooling.MEAN, (3, 1), Merge.WEIGHTS, (1, -0.5)),
        ),
        ({"merge": {"weights": [2]}}, ResolvedFeature(Pooling.MEAN, (6,), Merge.WEIGHTS, (2,))),
        ({"pooling": "none", "exclude_special": True}, ResolvedFeature(Pooling.NONE, (6,), exclude_special=True)),
    ],
    ids=str,
)
def test_feature(artifact: Artifact, fields: dict[str, Any], expected: ResolvedFeature) -> None:
    assert feature(artifact, fields) == expected


def test_normalize_is_the_routes_to_say(artifact: Artifact) -> None:
    resolved = FeatureFields().resolve(artifact.manifest, normalize=True)
    assert resolved == ResolvedFeature(Pooling.MEAN, (6,), normalize=True)


@pytest.mark.parametrize(
    ("fields", "manifest", "param"),
    [
        ({"layers": [0, 7]}, {}, "f.layers[1]"),
        ({"layers": [-8]}, {}, "f.layers[0]"),
        ({"layers": [3]}, {"layers": 2}, "f.layers[0]"),
        ({"merge": {"weights": [1, 2]}}, {}, "f.merge.weights"),
        ({"pooling": "pooler"}, {"outputs": {}}, "f.pooling"),
        ({}, {"outputs": {}, "pooling": Pooling.POOLER}, "f.pooling"),
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
        (HeadCut(head=0), Truncation(Cut.MIDDLE, head=0)),
        (HeadCut(head=254), Truncation(Cut.MIDDLE, head=254)),
        (WindowCut(), Truncation(Cut.WINDOW, window=256)),
        (WindowCut(window=3), Truncation(Cut.WINDOW, window=3)),
        (WindowCut(stride=9), Truncation(Cut.WINDOW, window=256, stride=9)),
        (
            WindowCut(window=64, stride=62, combine=Combine.MAX),
            Truncation(Cut.WINDOW, window=64, stride=62, combine=Combine.MAX),
        ),
    ],
    ids=str,
)
def test_truncation(artifact: Artifact, field: Any, expected: Truncation) -> None:
    """The library reads the fields' models as it reads what its own callers say."""
    assert truncation_of(field.model_dump(), artifact.manifest) == expected
