"""The encoder on the default model: what a unit gets depends on that unit alone."""

import gc
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.errors import ArtifactError, EncoderError
from service.inference.artifact import GRAPH, SHORT_GRAPH, SHORT_LENGTHS, Artifact
from service.inference.encoder import CpuEncoder
from service.inference.pooling import merge_layers, pool
from service.inference.types import Encoding, Feature, Merge, Pooling, Unit

SENTENCE = Feature(Pooling.MEAN, (6,), normalize=True)
FEATURES = [
    SENTENCE,
    Feature(Pooling.CLS, (6,)),
    Feature(Pooling.MAX, (0, 3)),
    Feature(Pooling.NONE, (3, 4, 5, 6), Merge.MEAN),
    Feature(Pooling.POOLER, (6,)),
    Feature(Pooling.WORDS, (6,), Merge.WEIGHTS, (0.5,), exclude_special=False),
    Feature(Pooling.WEIGHTED_MEAN, (2,), normalize=True, exclude_special=True),
]


def encoding(length: int, seed: int = 0) -> Encoding:
    ids = np.random.default_rng([length, seed]).integers(1000, 30000, size=length, dtype=np.int32)
    ids[[0, -1]] = 101, 102
    special = np.zeros(length, dtype=bool)
    special[[0, -1]] = True
    words = np.arange(-1, length - 1, dtype=np.int32)
    words[-1] = -1
    return Encoding(ids, np.zeros_like(ids), special, words)


def units(lengths: Iterable[int], features: Sequence[Feature] = (SENTENCE,)) -> list[Unit]:
    return [Unit(encoding(length, seed), tuple(features)) for seed, length in enumerate(lengths)]


@pytest.mark.parametrize(
    "lengths",
    [[3] * 40, [256, 3, 3, 3, 3], [3, 256, 17, 90], list(range(3, 60)), [256, 256]],
    ids=["equal", "one long", "mixed", "every length", "longest"],
)
def test_vector_does_not_depend_on_its_neighbours(encoder: CpuEncoder, lengths: list[int]) -> None:
    batch = units(lengths)
    together = encoder(batch)
    for unit, [vector] in zip(batch, together, strict=True):
        [[alone]] = encoder([unit])
        assert np.abs(vector - alone).max() < 1e-5


def test_order_in_the_batch_is_kept(encoder: CpuEncoder) -> None:
    batch = units([5, 90, 17, 5])
    for [vector], [mirrored] in zip(encoder(batch), reversed(encoder(batch[::-1])), strict=True):
        assert np.abs(vector - mirrored).max() < 1e-5


@pytest.mark.parametrize("feature", FEATURES[1:], ids=lambda feature: str(feature.pooling))
def test_features_in_one_batch_do_not_mix(encoder: CpuEncoder, feature: Feature) -> None:
    """Units that want different things share a batch; each gets what it would get alone, in its own order."""
    batch = [
        *units([9, 30]),
        Unit(encoding(12), (feature,)),
        Unit(encoding(20), (SENTENCE, feature, Feature(Pooling.LAST, (1,)))),
        *units([7], FEATURES),
        Unit(encoding(12, 9), (feature, SENTENCE)),
    ]
    for unit, vectors in zip(batch, encoder(batch), strict=True):
        assert len(vectors) == len(unit.features)
        for vector, wanted in zip(vectors, unit.features, strict=True):
            [[alone]] = encoder([Unit(unit.encoding, (wanted,))])
            assert vector.shape == alone.shape
            assert np.abs(vector - alone).max() < 1e-4


def test_a_short_text_alone_has_a_graph_of_its_own(artifact: Artifact, encoder: CpuEncoder) -> None:
    without = encoder.without_short_graph()

    def alike(unit: Unit) -> bool:
        return np.array_equal(
            encoder([unit])[0][0], without([unit])[0][0]
        )  # two ways are never the same to the last bit

    assert not any(map(alike, units(SHORT_LENGTHS)))
    assert all(map(alike, units([3, SHORT_LENGTHS.start - 1, SHORT_LENGTHS.stop, 256])))
    assert all(map(alike, units([20], [Feature(Pooling.POOLER, (6,))])))


def test_the_graph_for_short_texts_can_be_left_out(artifact: Artifact, encoder: CpuEncoder) -> None:
    files = {name: digest for name, digest in artifact.manifest.files.items() if name != SHORT_GRAPH}
    without = replace(artifact, manifest=artifact.manifest.model_copy(update={"files": files}))
    assert encoder.has_short_graph
    assert not encoder.without_short_graph().has_short_graph
    assert not CpuEncoder(artifact, short_graph=False).has_short_graph
    assert not CpuEncoder(without).has_short_graph


def test_matrices_live_as_long_as_their_encoder(artifact: Artifact) -> None:
    encode = CpuEncoder(artifact)
    before = encode(units([20]))[0][0]
    gc.collect()
    _others = [np.ones(1 << 20) for _ in range(20)]  # would lie where they lay
    assert np.array_equal(encode(units([20]))[0][0], before)


def test_feature_asked_twice_is_given_twice(encoder: CpuEncoder) -> None:
    [[first, second], [other]] = encoder([Unit(encoding(9), (SENTENCE, SENTENCE)), Unit(encoding(30), (SENTENCE,))])
    np.testing.assert_array_equal(first, second)
    assert np.abs(other - encoder(units([30]))[0][0]).max() < 1e-5
    assert np.abs(first - encoder(units([9]))[0][0]).max() < 1e-5


def test_features_are_poolings_of_the_hidden_states(encoder: CpuEncoder) -> None:
    layers = (1, 6)
    unit = Unit(encoding(11), tuple(Feature(Pooling.NONE, (layer,)) for layer in layers))
    [states] = encoder([unit])
    for pooling in (Pooling.MEAN, Pooling.MAX, Pooling.CLS, Pooling.LAST, Pooling.MEAN_MAX, Pooling.WORDS):
        feature = Feature(pooling, layers)
        [[vector]] = encoder([Unit(unit.encoding, (feature,))])
        [expected] = pool(feature, merge_layers(feature, dict(zip(layers, states, strict=True))), [unit.encoding])
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        (SENTENCE, (384,)),
        (Feature(Pooling.MEAN_MAX, (6,)), (768,)),
        (Feature(Pooling.MEAN, (1, 2, 3)), (1152,)),
        (Feature(Pooling.NONE, (6,)), (10, 384)),
        (Feature(Pooling.WORDS, (6,)), (8, 384)),
        (Feature(Pooling.POOLER, (6,)), (384,)),
    ],
    ids=str,
)
def test_shapes(encoder: CpuEncoder, feature: Feature, shape: tuple[int, ...]) -> None:
    [[vector]] = encoder([Unit(encoding(10), (feature,))])
    assert vector.shape == shape
    assert vector.dtype == np.float32


def test_normalized_vectors_have_length_one(encoder: CpuEncoder) -> None:
    for [vector] in encoder(units([3, 40, 256])):
        assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


class Session:
    """ONNX Runtime's session, with an output that is not a number, or none at all."""

    def __init__(self, session: Any, answer: Callable[[Any], Any]) -> None:
        self._session = session
        self._answer = answer

    def run(self, *arguments: Any) -> Any:
        return self._answer(self._session.run(*arguments))


def spoil(values: list[Any]) -> list[Any]:
    values[0][-1, 0] = np.nan
    return values


def fail(_: list[Any]) -> list[Any]:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(("answer", "message"), [(spoil, "not finite"), (fail, "the encoder failed")])
def test_what_is_no_vector_is_an_error(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any], Any], message: str
) -> None:
    encoder = CpuEncoder(artifact)
    monkeypatch.setattr(encoder, "_session", Session(encoder._session, answer))
    with pytest.raises(EncoderError, match=message):
        encoder(units([5, 6]))


def test_graph_that_cannot_be_loaded_is_refused(artifact: Artifact, tiny_copy: Path) -> None:
    (tiny_copy / GRAPH).write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        CpuEncoder(Artifact(tiny_copy, artifact.manifest))


def test_matrices_that_cannot_be_read_are_refused_in_one_line(artifact: Artifact, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(artifact.folder, tmp_path / "copy"))
    model = onnx.load(copy / SHORT_GRAPH, load_external_data=False)
    del model.metadata_props[:]
    onnx.save(model, copy / SHORT_GRAPH)
    with pytest.raises(ArtifactError, match=f"{SHORT_GRAPH}: its matrices cannot be read"):
        CpuEncoder(replace(artifact, folder=copy))
