"""What a user writes of a representation, and what a model is asked for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from berth.artifact import Artifact, Dense, Manifest, Normalize, Output
from berth.errors import InvalidInputError
from berth.features import Feature, check_dimensions, sentence_feature, sentence_width
from berth.types import Frame, Merge, Pooling, ResolvedFeature


@pytest.fixture
def manifest(artifact: Artifact) -> Manifest:
    """Give the default model's manifest: 6 layers, mean pooling, normalised; as if it had a pooler."""
    return artifact.manifest.model_copy(update={"outputs": {"pooler_output": Output(per="text", width=384)}})


@pytest.mark.parametrize(
    ("feature", "resolved"),
    [
        (Feature(), ResolvedFeature(Pooling.MEAN, (6,))),
        (Feature("cls"), ResolvedFeature(Pooling.CLS, (6,))),
        (Feature(Pooling.MAX), ResolvedFeature(Pooling.MAX, (6,))),
        (Feature(layers=[0]), ResolvedFeature(Pooling.MEAN, (0,))),
        (Feature(layers=[-1, -2, -7]), ResolvedFeature(Pooling.MEAN, (6, 5, 0))),
        (Feature(layers=(1, 6)), ResolvedFeature(Pooling.MEAN, (1, 6))),
        (Feature(layers=range(2)), ResolvedFeature(Pooling.MEAN, (0, 1))),
        (Feature(layers=list(np.arange(1, 3))), ResolvedFeature(Pooling.MEAN, (1, 2))),
        (Feature(layers=[1, 2], merge="mean"), ResolvedFeature(Pooling.MEAN, (1, 2), Merge.MEAN)),
        (Feature(layers=[1, 2], merge="sum"), ResolvedFeature(Pooling.MEAN, (1, 2), Merge.SUM)),
        (
            Feature(layers=[1, 2], merge=[0.25, 1]),
            ResolvedFeature(Pooling.MEAN, (1, 2), Merge.WEIGHTS, (0.25, 1.0)),
        ),
        (Feature(merge=[2.0]), ResolvedFeature(Pooling.MEAN, (6,), Merge.WEIGHTS, (2.0,))),
        (Feature("none", normalize=True), ResolvedFeature(Pooling.NONE, (6,), normalize=True)),
        (Feature("words", exclude_special=True), ResolvedFeature(Pooling.WORDS, (6,), exclude_special=True)),
        (Feature("pooler"), ResolvedFeature(Pooling.POOLER, (6,))),
        (Feature("pooler", normalize=True), ResolvedFeature(Pooling.POOLER, (6,), normalize=True)),
    ],
    ids=str,
)
def test_what_is_written_is_resolved(manifest: Manifest, feature: Feature, resolved: ResolvedFeature) -> None:
    found = feature.resolve(manifest)
    assert found == resolved
    assert hash(found) == hash(resolved)
    assert [type(layer) for layer in found.layers] == [int] * len(found.layers)
    assert [type(weight) for weight in found.weights] == [float] * len(found.weights)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"pooling": "median"}, "pooling", "'median' is none of cls, mean, max"),
        ({"pooling": 5}, "pooling", "5 is none of"),
        ({"layers": [7]}, "layers[0]", "layer 7 is not there: 0 to 6, or -7 to -1"),
        ({"layers": [0, -8]}, "layers[1]", "layer -8 is not there"),
        ({"layers": [1.0]}, "layers[0]", "must be an integer, not 1.0"),
        ({"layers": ["last"]}, "layers[0]", "must be an integer, not 'last'"),
        ({"layers": [True]}, "layers[0]", "must be an integer, not True"),
        ({"layers": [None]}, "layers[0]", "must be an integer, not None"),
        ({"layers": -1}, "layers", "must be a list of integers"),
        ({"layers": "-1"}, "layers", "must be a list of integers"),
        ({"layers": []}, "layers", "must not be empty"),
        ({"layers": [6, -1]}, "layers", "names a layer twice"),
        ({"merge": "median"}, "merge", "'median' is none of concat, mean, sum"),
        ({"merge": None}, "merge", "must be a list of weights, or concat, mean or sum"),
        ({"merge": 0.5}, "merge", "must be a list of weights"),
        ({"merge": "weights"}, "merge.weights", "0 weights for 1 layers"),
        ({"merge": []}, "merge.weights", "0 weights for 1 layers"),
        ({"merge": [1, 1]}, "merge.weights", "2 weights for 1 layers"),
        ({"layers": [1, 2], "merge": [1.0, "a"]}, "merge.weights[1]", "must be a number from"),
        ({"layers": [1, 2], "merge": [1.0, float("nan")]}, "merge.weights[1]", "must be a number from"),
        ({"layers": [1, 2], "merge": [float("-inf"), 1.0]}, "merge.weights[0]", "must be a number from"),
        ({"merge": [1e7]}, "merge.weights[0]", "must be a number from -1e.06 to 1e.06"),
        ({"merge": [True]}, "merge.weights[0]", "must be a number from"),
        ({"pooling": "cls", "exclude_special": True}, "exclude_special", r"leaves out the \[CLS\]"),
        ({"pooling": "pooler", "layers": [-1]}, "layers", "does not go with `pooler`"),
        ({"pooling": "pooler", "merge": "sum"}, "merge", "does not go with `pooler`"),
        ({"pooling": "pooler", "exclude_special": True}, "exclude_special", "does not go with `pooler`"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["", "features[3]."])
def test_errors_name_the_field(
    manifest: Manifest, fields: dict[str, Any], param: str, message: str, place: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        Feature(**fields).resolve(manifest, place)
    assert error.value.param == place + param
    assert str(error.value).startswith(f"{place}{param}: ")


def test_a_model_without_a_pooler_has_none(manifest: Manifest) -> None:
    with pytest.raises(InvalidInputError, match="the model has no pooler") as error:
        Feature("pooler").resolve(manifest.model_copy(update={"outputs": {}}))
    assert error.value.param == "pooling"


def test_cls_is_the_row_that_the_frame_says(manifest: Manifest) -> None:
    def model(cls: int | None) -> Manifest:
        frame = Frame((), (4,), (4, 3), cls)
        return manifest.model_copy(update={"frame": frame, "pooling": Pooling.CLS, "normalize": False})

    assert Feature("cls").resolve(model(0)).pooling is Pooling.CLS
    assert Feature("cls").resolve(model(-1)) == ResolvedFeature(Pooling.LAST, (6,))
    with pytest.raises(InvalidInputError, match=r"^f\.pooling: the model has no \[CLS\]$"):
        Feature("cls").resolve(model(None), "f.")
    for cls in (0, -1, None):  # the model's own is the first row, as in sentence-transformers
        assert Feature().resolve(model(cls)) == sentence_feature(model(cls)) == ResolvedFeature(Pooling.CLS, (6,))
    for feature in (Feature("cls"), Feature()):
        with pytest.raises(InvalidInputError, match=r"leaves out the \[CLS\]"):
            replace(feature, exclude_special=True).resolve(model(-1))
    assert Feature("last").resolve(model(None)).pooling is Pooling.LAST


OWN = {
    "further_poolings": (Pooling.MAX,),
    "include_prompt": False,
    "projection": (Normalize(), Dense(inputs=768, outputs=24, activation="Tanh")),
    "truncate_dim": 16,
}


def test_the_sentence_feature_has_all_that_the_model_says(manifest: Manifest) -> None:
    model = manifest.model_copy(update=OWN)
    own = sentence_feature(model)
    assert own.poolings == (Pooling.MEAN, Pooling.MAX)
    assert (own.include_prompt, own.projected, own.dimensions, own.normalize) == (False, 24, 16, True)
    assert sentence_width(model) == 16
    assert sentence_width(model.model_copy(update={"truncate_dim": None})) == 24
    assert sentence_width(model.model_copy(update={"truncate_dim": 100})) == 24
    assert sentence_width(model.model_copy(update={"projection": (), "truncate_dim": None})) == 768


def test_a_feature_that_is_asked_for_is_neither_projected_nor_cut(manifest: Manifest) -> None:
    model = manifest.model_copy(update=OWN)
    assert Feature().resolve(model) == ResolvedFeature(
        Pooling.MEAN, (6,), further=(Pooling.MAX,), include_prompt=False
    ), "the model's own pooling"
    assert Feature("mean").resolve(model) == ResolvedFeature(Pooling.MEAN, (6,))
    with pytest.raises(InvalidInputError, match=r"leaves out the \[CLS\]"):
        Feature(exclude_special=True).resolve(model.model_copy(update={"further_poolings": (Pooling.CLS,)}))


@pytest.mark.parametrize(("update", "most"), [({}, 384), (OWN, 16), (OWN | {"truncate_dim": None}, 24)], ids=str)
def test_dimensions_are_those_of_the_models_own_vector(manifest: Manifest, update: Any, most: int) -> None:
    model = manifest.model_copy(update=update)
    check_dimensions(most, model)
    with pytest.raises(InvalidInputError, match=f"must be an integer from 1 to {most}, not {most + 1}"):
        check_dimensions(most + 1, model)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_sentence_feature_is_the_models_own(manifest: Manifest, normalize: bool) -> None:
    model = manifest.model_copy(update={"pooling": Pooling.CLS, "normalize": normalize})
    assert sentence_feature(model) == ResolvedFeature(Pooling.CLS, (6,), normalize=normalize)
    assert Feature().resolve(model) == ResolvedFeature(Pooling.CLS, (6,)), "not normalised unless it is asked for"
