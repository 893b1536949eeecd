"""The encoder and the exported CUDA graph together, the graph computed node by node in the GPU's place."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from berth.artifact import GRAPH, Artifact, Precision, read_artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.backends.cuda.encoder import CudaEncoder
from berth.backends.golden import check_golden_vectors
from berth.types import Encoding, Merge, Pooling, ResolvedFeature, TokenSequence
from model_export.evaluation import Evaluation
from model_export.export import export

if TYPE_CHECKING:
    from tests.berth.backends.cuda.conftest import MakeSession

LAST = 3
FEATURES = (
    *(ResolvedFeature(pooling, (LAST,)) for pooling in Pooling),
    ResolvedFeature(Pooling.MEAN_MAX, (LAST,), normalize=True, exclude_special=True),
    ResolvedFeature(Pooling.MEAN, (0, 2), Merge.SUM),
    ResolvedFeature(Pooling.MAX, (LAST,), further=(Pooling.CLS, Pooling.MEAN), normalize=True, dimensions=70),
)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def cuda_artifact(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> Artifact:
    folder = tmp_path_factory.mktemp("artifact") / "tiny-cuda"
    return read_artifact(export(str(tiny_checkpoint), folder, "cuda", request.param).folder)


@pytest.fixture
def encoder(cuda_artifact: Artifact, make_session: "MakeSession") -> CudaEncoder:
    graph = onnx.load(cuda_artifact.graph, load_external_data=False).graph
    assert cuda_artifact.graph.name == GRAPH
    types = {onnx.TensorProto.FLOAT: "tensor(float)", onnx.TensorProto.FLOAT16: "tensor(float16)"}
    states = next(output for output in graph.output if output.name == f"hidden_state_{LAST}")
    session = make_session(
        Evaluation(cuda_artifact.folder),
        types[states.type.tensor_type.elem_type],
        inputs={each.name for each in graph.input},
    )
    return CudaEncoder(cuda_artifact.manifest, session)


def sequence(length: int, *features: ResolvedFeature) -> TokenSequence:
    ids = (np.arange(length, dtype=np.int32) * 7 + length) % 97
    special = np.zeros(length, dtype=bool)
    special[[0, -1]] = length > 2
    return TokenSequence(
        Encoding(ids.astype(np.int32), ids % 3, special, np.arange(length, dtype=np.int32) // 2), features
    )


def test_vectors_are_those_of_the_cpu(encoder: CudaEncoder, cuda_artifact: Artifact, tiny_artifact: Path) -> None:
    on_cpu = CpuEncoder(read_artifact(tiny_artifact))
    random = np.random.default_rng(0)
    batch = [sequence(length, *FEATURES) for length in (1, 40, 2, 17)]
    for length in (3, 33, 9, 8):
        chosen = random.permutation(len(FEATURES))[:3]
        batch.append(sequence(length, *(FEATURES[place] for place in chosen)))
    precision: Precision = cuda_artifact.manifest.precision
    atol = {"fp32": 1e-5, "fp16": 3e-2}[precision]
    for ours, theirs in zip(encoder.encode(batch), on_cpu.encode(batch), strict=True):
        for vector, expected in zip(ours, theirs, strict=True):
            assert vector.dtype == np.float32
            np.testing.assert_allclose(vector, expected, atol=atol)


def test_golden_vectors_agree(encoder: CudaEncoder, cuda_artifact: Artifact) -> None:
    check_golden_vectors(cuda_artifact, encoder)
