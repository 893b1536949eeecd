"""The projection of an artifact, from its file to vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from berth.artifact import (
    PROJECTION,
    Activation,
    Artifact,
    Dense,
    DenseWeights,
    Normalize,
    read_artifact,
    sha256,
    write_projection,
)
from berth.backends.cpu.encoder import CpuEncoder
from berth.backends.projection import ACTIVATIONS, open_projection
from berth.errors import ArtifactError
from berth.features import sentence_feature
from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence
from tests.berth.backends.states import random_rows

Amend = Callable[..., None]

LAYERS = (Normalize(), Dense(inputs=60, outputs=4, activation="ReLU"))
WEIGHTS = {
    1: DenseWeights(np.random.default_rng(0).normal(size=(4, 60)).astype(np.float32), np.ones(4, dtype=np.float32))
}


@pytest.fixture
def projected(tiny_copy: Path, amend: Amend) -> Path:
    """Give the tiny artifact with a projection."""
    write_projection(tiny_copy, WEIGHTS)
    files = read_artifact(tiny_copy).manifest.files | {PROJECTION: sha256(tiny_copy / PROJECTION)}
    amend(tiny_copy, projection=[layer.model_dump() for layer in LAYERS], files=files)
    return tiny_copy


def test_every_activation_has_its_formula() -> None:
    assert tuple(ACTIVATIONS) == get_args(Activation)


def test_an_artifact_without_one_has_none(artifact: Artifact) -> None:
    assert open_projection(artifact) is None
    assert artifact.projection() == {}


def test_layers_are_those_of_the_manifest(projected: Path) -> None:
    artifact = read_artifact(projected)
    assert artifact.manifest.projection == LAYERS
    project = open_projection(artifact)
    assert project is not None
    rows = np.pad(random_rows(3), ((0, 0), (0, 48)))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(project(2 * rows), np.maximum(rows @ WEIGHTS[1].weight.T + 1, 0), atol=1e-6)


def test_a_text_has_the_same_vector_alone_and_in_company(projected: Path) -> None:
    project = open_projection(read_artifact(projected))
    assert project is not None
    rows = np.random.default_rng(1).normal(size=(40, 60)).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([project(row[None]) for row in rows]), project(rows))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"inputs": 59}, r"projection\.npz: weight_1 \[4, 60\] is not the layer of manifest\.json"),
        ({"outputs": 5}, r"projection\.npz: weight_1 \[4, 60\] is not the layer of manifest\.json"),
    ],
)
def test_a_projection_that_the_file_has_not_is_refused(
    projected: Path, amend: Amend, layer: dict[str, object], message: str
) -> None:
    amend(projected, projection=[LAYERS[0].model_dump(), LAYERS[1].model_dump() | layer])
    with pytest.raises(ArtifactError, match=message):
        open_projection(read_artifact(projected))


def test_a_file_that_is_none_is_refused(projected: Path, amend: Amend) -> None:
    (projected / PROJECTION).write_bytes(b"none")
    amend(projected)
    with pytest.raises(ArtifactError, match=r"projection\.npz cannot be read: "):
        open_projection(read_artifact(projected))


def test_a_file_that_no_hash_vouches_for_is_refused(projected: Path, amend: Amend) -> None:
    files = read_artifact(projected).manifest.files
    amend(projected, files={name: files[name] for name in files if name != PROJECTION})
    with pytest.raises(ArtifactError, match=r"does not vouch for projection\.npz"):
        read_artifact(projected)


def test_the_models_own_vector_alone_is_projected(projected: Path) -> None:
    artifact = read_artifact(projected)
    encoder = CpuEncoder(artifact)
    own = sentence_feature(artifact.manifest)
    raw = ResolvedFeature(Pooling.MEAN, own.layers)
    sequences = [
        TokenSequence(Encoding(np.arange(length, dtype=np.int32), np.zeros(length, np.int32)), (own, raw))
        for length in (3, 9, 4)
    ]
    project = open_projection(artifact)
    assert project is not None
    for vector, mean in encoder.encode(sequences):
        assert (vector.shape, mean.shape) == ((4,), (60,))
        np.testing.assert_allclose(vector, project(mean[None])[0], atol=1e-6)
