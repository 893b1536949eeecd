"""The encoder on the default model: what a sequence gets depends on that sequence alone."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from berth.artifact import EXACT_PRODUCTS, GRAPH, Artifact, GoldenVector, read_artifact, write_golden_vectors
from berth.backends.cpu import encoder as encoder_module
from berth.backends.cpu.encoder import CpuEncoder, open_cpu_encoder
from berth.backends.golden import check_golden_vectors
from berth.backends.pooling import merge_layers, pool
from berth.errors import ArtifactError, EncoderError
from berth.types import Encoding, Merge, Pooling, ResolvedFeature, TokenSequence
from model_export.export import export

SENTENCE = ResolvedFeature(Pooling.MEAN, (6,), normalize=True)
FEATURES = [
    SENTENCE,
    ResolvedFeature(Pooling.CLS, (6,)),
    ResolvedFeature(Pooling.MAX, (0, 3)),
    ResolvedFeature(Pooling.NONE, (3, 4, 5, 6), Merge.MEAN),
    ResolvedFeature(Pooling.POOLER, (6,)),
    ResolvedFeature(Pooling.WORDS, (6,), Merge.WEIGHTS, (0.5,), exclude_special=False),
    ResolvedFeature(Pooling.WEIGHTED_MEAN, (2,), normalize=True, exclude_special=True),
]


def encoding(length: int, seed: int = 0) -> Encoding:
    ids = np.random.default_rng([length, seed]).integers(1000, 30000, size=length, dtype=np.int32)
    ids[[0, -1]] = 101, 102
    special = np.zeros(length, dtype=bool)
    special[[0, -1]] = True
    words = np.arange(-1, length - 1, dtype=np.int32)
    words[-1] = -1
    return Encoding(ids, np.zeros_like(ids), special, words)


def sequences(lengths: Iterable[int], features: Sequence[ResolvedFeature] = (SENTENCE,)) -> list[TokenSequence]:
    return [TokenSequence(encoding(length, seed), tuple(features)) for seed, length in enumerate(lengths)]


@pytest.mark.parametrize(
    "lengths",
    [[3] * 40, [256, 3, 3, 3, 3], [3, 256, 17, 90], list(range(3, 60)), [256, 256]],
    ids=["equal", "one long", "mixed", "every length", "longest"],
)
def test_vector_does_not_depend_on_its_neighbours(encoder: CpuEncoder, lengths: list[int]) -> None:
    batch = sequences(lengths)
    together = encoder.encode(batch)
    for sequence, [vector] in zip(batch, together, strict=True):
        [[alone]] = encoder.encode([sequence])
        assert np.abs(vector - alone).max() < 1e-5


def test_order_in_the_batch_is_kept(encoder: CpuEncoder) -> None:
    batch = sequences([5, 90, 17, 5])
    for [vector], [mirrored] in zip(encoder.encode(batch), reversed(encoder.encode(batch[::-1])), strict=True):
        assert np.abs(vector - mirrored).max() < 1e-5


@pytest.mark.parametrize("feature", FEATURES[1:], ids=lambda feature: str(feature.pooling))
def test_features_in_one_batch_do_not_mix(encoder: CpuEncoder, feature: ResolvedFeature) -> None:
    """TokenSequences that want different things share a batch; each gets what it would get alone, in its own order."""
    batch = [
        *sequences([9, 30]),
        TokenSequence(encoding(12), (feature,)),
        TokenSequence(encoding(20), (SENTENCE, feature, ResolvedFeature(Pooling.LAST, (1,)))),
        *sequences([7], FEATURES),
        TokenSequence(encoding(12, 9), (feature, SENTENCE)),
    ]
    for sequence, vectors in zip(batch, encoder.encode(batch), strict=True):
        assert len(vectors) == len(sequence.features)
        for vector, wanted in zip(vectors, sequence.features, strict=True):
            [[alone]] = encoder.encode([TokenSequence(sequence.encoding, (wanted,))])
            assert vector.shape == alone.shape
            assert np.abs(vector - alone).max() < 1e-4


def test_feature_asked_twice_is_given_twice(encoder: CpuEncoder) -> None:
    [[first, second], [other]] = encoder.encode(
        [TokenSequence(encoding(9), (SENTENCE, SENTENCE)), TokenSequence(encoding(30), (SENTENCE,))]
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(other - encoder.encode(sequences([30]))[0][0]).max() < 1e-5
    assert np.abs(first - encoder.encode(sequences([9]))[0][0]).max() < 1e-5


def test_features_are_poolings_of_the_hidden_states(encoder: CpuEncoder) -> None:
    layers = (1, 6)
    sequence = TokenSequence(encoding(11), tuple(ResolvedFeature(Pooling.NONE, (layer,)) for layer in layers))
    [states] = encoder.encode([sequence])
    for pooling in (Pooling.MEAN, Pooling.MAX, Pooling.CLS, Pooling.LAST, Pooling.MEAN_MAX, Pooling.WORDS):
        feature = ResolvedFeature(pooling, layers)
        [[vector]] = encoder.encode([TokenSequence(sequence.encoding, (feature,))])
        [expected] = pool(feature, merge_layers(feature, dict(zip(layers, states, strict=True))), [sequence.encoding])
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        (SENTENCE, (384,)),
        (ResolvedFeature(Pooling.MEAN_MAX, (6,)), (768,)),
        (ResolvedFeature(Pooling.MEAN, (1, 2, 3)), (1152,)),
        (ResolvedFeature(Pooling.NONE, (6,)), (10, 384)),
        (ResolvedFeature(Pooling.WORDS, (6,)), (8, 384)),
        (ResolvedFeature(Pooling.POOLER, (6,)), (384,)),
    ],
    ids=str,
)
def test_shapes(encoder: CpuEncoder, feature: ResolvedFeature, shape: tuple[int, ...]) -> None:
    [[vector]] = encoder.encode([TokenSequence(encoding(10), (feature,))])
    assert vector.shape == shape
    assert vector.dtype == np.float32


def test_normalized_vectors_have_length_one(encoder: CpuEncoder) -> None:
    for [vector] in encoder.encode(sequences([3, 40, 256])):
        assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


class Session:
    """ONNX Runtime's session, with an output that is not a number, or none at all."""

    def __init__(self, session: Any, answer: Callable[[Any], Any]) -> None:
        self._session = session
        self._answer = answer

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

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
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **rest: Session(make(*args, **rest), answer))
    with pytest.raises(EncoderError, match=message):
        CpuEncoder(artifact).encode(sequences([5, 6]))


def test_graph_that_cannot_be_loaded_is_refused(artifact: Artifact, tiny_copy: Path) -> None:
    (tiny_copy / GRAPH).write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        CpuEncoder(Artifact(tiny_copy, artifact.manifest))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Give a list of the sessions that are made: whether each has exact kernels."""
    make = onnxruntime.InferenceSession
    exact: list[bool] = []

    def noting(graph: Any, options: Any, **rest: Any) -> Any:
        key, value = EXACT_PRODUCTS
        try:
            exact.append(options.get_session_config_entry(key) == value)
        except RuntimeError:  # it is not set
            exact.append(False)
        return make(graph, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    return exact


@pytest.fixture(scope="module")
def int8_artifact(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Artifact:
    """Give an artifact in int8 with weights in 8 bits."""
    folder = tmp_path_factory.mktemp("artifact") / "tiny-int8"
    return read_artifact(export(str(tiny_checkpoint), folder, precision="int8", int8_weights=8).folder)


@pytest.fixture(scope="module")
def w7_artifact(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Artifact:
    """Give an artifact in int8 with weights in 7 bits."""
    folder = tmp_path_factory.mktemp("artifact") / "tiny-int8-w7"
    return read_artifact(export(str(tiny_checkpoint), folder, precision="int8", int8_weights=7).folder)


def spoil_golden_vectors(artifact: Artifact, amend: Callable[..., None]) -> Artifact:
    """Have the golden vectors be others than this machine, or any, computes."""
    golden = [GoldenVector(each.encoding, -each.vector) for each in artifact.golden_vectors()]
    write_golden_vectors(artifact.folder, golden)
    amend(artifact.folder)
    return read_artifact(artifact.folder)


def test_machine_that_computes_right_is_opened(tiny_artifact: Path, loaded: list[bool]) -> None:
    feature = ResolvedFeature(Pooling.MEAN, (3,))
    ids = np.array([2, 40, 3], dtype=np.int32)
    [[vector]] = open_cpu_encoder(read_artifact(tiny_artifact)).encode(
        [TokenSequence(Encoding(ids, np.zeros_like(ids)), (feature,))]
    )
    assert vector.shape == (60,)
    assert loaded == [False]


def test_machine_that_computes_wrongly_is_refused(
    tiny_copy: Path, amend: Callable[..., None], loaded: list[bool]
) -> None:
    artifact = spoil_golden_vectors(read_artifact(tiny_copy), amend)
    with pytest.raises(ArtifactError, match="differ from the golden vectors"):
        open_cpu_encoder(artifact)
    assert loaded == [False]  # exact kernels are int8's


def test_int8_has_exact_kernels_where_the_fast_ones_are_wrong(
    int8_artifact: Artifact, loaded: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a processor fails by itself; any other is made to."""
    checked: list[CpuEncoder] = []

    def check(artifact: Artifact, encoder: CpuEncoder) -> None:
        checked.append(encoder)
        if len(checked) == 1:
            raise ArtifactError("this machine's vectors differ from the golden vectors")
        check_golden_vectors(artifact, encoder)

    monkeypatch.setattr(encoder_module, "check_golden_vectors", check)
    assert open_cpu_encoder(int8_artifact) is checked[1]
    assert loaded == [False, True]
    assert "without VNNI the fast ones add products of 8-bit weights wrongly" in caplog.text
    assert "export again with --int8-weights 7, which is faster here: this machine's vectors" in caplog.text


@pytest.mark.parametrize("vnni", [True, False, None])
def test_int8_of_7_bits_has_the_fast_kernels_on_every_processor(
    w7_artifact: Artifact,
    loaded: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    vnni: bool | None,
) -> None:
    monkeypatch.setattr(encoder_module, "vnni_here", lambda: vnni)
    caplog.set_level("INFO")
    open_cpu_encoder(w7_artifact).close()
    assert loaded == [False]
    line = (
        "int8: the weights are in 7 bits; on this processor, which has VNNI, 8 are as fast and nearer to fp32: "
        "export again with --int8-weights 8"
    )
    assert caplog.messages == ([line] if vnni else [])


@pytest.mark.parametrize("vnni", [True, False, None])
def test_int8_of_8_bits_that_is_computed_right_has_nothing_to_say(
    int8_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, vnni: bool | None
) -> None:
    monkeypatch.setattr(encoder_module, "vnni_here", lambda: vnni)
    monkeypatch.setattr(encoder_module, "check_golden_vectors", lambda *_: None)
    caplog.set_level("INFO")
    open_cpu_encoder(int8_artifact).close()
    assert not caplog.messages


def test_int8_of_7_bits_that_is_computed_wrongly_is_refused(
    w7_artifact: Artifact, tmp_path: Path, amend: Callable[..., None], loaded: list[bool]
) -> None:
    """Exact kernels would add to the same sums."""
    copy = Path(shutil.copytree(w7_artifact.folder, tmp_path / "copy"))
    artifact = spoil_golden_vectors(read_artifact(copy), amend)
    with pytest.raises(ArtifactError, match="differ from the golden vectors"):
        open_cpu_encoder(artifact)
    assert loaded == [False]


@pytest.mark.parametrize("name", ["int8_artifact", "w7_artifact"])
def test_int8_is_the_same_by_exact_kernels(request: pytest.FixtureRequest, name: str) -> None:
    artifact = request.getfixturevalue(name)
    batch = [TokenSequence(each.encoding, (ResolvedFeature(Pooling.MEAN, (1,)),)) for each in artifact.golden_vectors()]
    check_golden_vectors(artifact, exact := CpuEncoder(artifact, exact=True))
    for [vector], [expected] in zip(exact.encode(batch), open_cpu_encoder(artifact).encode(batch), strict=True):
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_int8_that_exact_kernels_compute_wrongly_too_is_refused(
    int8_artifact: Artifact, tmp_path: Path, amend: Callable[..., None], loaded: list[bool]
) -> None:
    copy = Path(shutil.copytree(int8_artifact.folder, tmp_path / "copy"))
    artifact = spoil_golden_vectors(read_artifact(copy), amend)
    with pytest.raises(ArtifactError, match="differ from the golden vectors"):
        open_cpu_encoder(artifact)
    assert loaded == [False, True]
