"""The encoder and the exported CUDA graph together, the graph computed node by node in the GPU's place."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from model_export.evaluation import Evaluation
from model_export.export import export
from service.inference.artifact import GRAPH, Artifact, Precision, read_artifact
from service.inference.cuda_encoder import CudaEncoder
from service.inference.encoder import CpuEncoder
from service.inference.probes import check_probes
from service.inference.types import Encoding, Feature, Merge, Pooling, Unit

if TYPE_CHECKING:
    from tests.service.inference.conftest import MakeSession, PlainMemory

LAST = 3
FEATURES = (
    *(Feature(pooling, (LAST,)) for pooling in Pooling),
    Feature(Pooling.MEAN_MAX, (LAST,), normalize=True, exclude_special=True),
    Feature(Pooling.MEAN, (0, 2), Merge.SUM),
)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def cuda_artifact(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> Artifact:
    folder = tmp_path_factory.mktemp("artifact") / "tiny-cuda"
    return read_artifact(export(str(tiny_checkpoint), folder, "cuda", request.param).folder)


@pytest.fixture
def encoder(cuda_artifact: Artifact, make_session: "MakeSession", plain_memory: "PlainMemory") -> CudaEncoder:
    graph = onnx.load(cuda_artifact.graph, load_external_data=False).graph
    assert cuda_artifact.graph.name == GRAPH
    types = {onnx.TensorProto.FLOAT: "tensor(float)", onnx.TensorProto.FLOAT16: "tensor(float16)"}
    states = next(output for output in graph.output if output.name == f"hidden_state_{LAST}")
    session = make_session(
        Evaluation(cuda_artifact.folder),
        types[states.type.tensor_type.elem_type],
        inputs={each.name for each in graph.input},
    )
    return CudaEncoder(cuda_artifact.manifest, session, plain_memory)


def unit(length: int, *features: Feature) -> Unit:
    ids = (np.arange(length, dtype=np.int32) * 7 + length) % 97
    special = np.zeros(length, dtype=bool)
    special[[0, -1]] = length > 2
    return Unit(Encoding(ids.astype(np.int32), ids % 3, special, np.arange(length, dtype=np.int32) // 2), features)


def test_vectors_are_those_of_the_cpu(encoder: CudaEncoder, cuda_artifact: Artifact, tiny_artifact: Path) -> None:
    on_cpu = CpuEncoder(read_artifact(tiny_artifact))
    random = np.random.default_rng(0)
    batch = [unit(length, *FEATURES) for length in (1, 40, 2, 17)]
    for length in (3, 33, 9, 8):
        chosen = random.permutation(len(FEATURES))[:3]
        batch.append(unit(length, *(FEATURES[place] for place in chosen)))
    precision: Precision = cuda_artifact.manifest.precision
    atol = {"fp32": 1e-5, "fp16": 3e-2}[precision]
    for ours, theirs in zip(encoder(batch), on_cpu(batch), strict=True):
        for vector, expected in zip(ours, theirs, strict=True):
            assert vector.dtype == np.float32
            np.testing.assert_allclose(vector, expected, atol=atol)


def test_probes_agree(encoder: CudaEncoder, cuda_artifact: Artifact) -> None:
    check_probes(cuda_artifact, encoder)
