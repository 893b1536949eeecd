"""`--device cuda` from the command line: on a machine without a GPU one line, on one with a GPU vectors."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from berth.artifact import Precision, read_artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.backends.cuda.devices import read_driver, require_gpus
from berth.backends.cuda.encoder import open_cuda_encoder
from berth.backends.golden import check_golden_vectors
from berth.errors import DeviceError
from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence
from model_export.export import export

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Launch


def lack() -> str | None:
    """Say why no GPU can be used here, or None where one can."""
    try:
        require_gpus([0])
    except DeviceError as error:
        return str(error)
    return None


@pytest.fixture
def no_driver() -> None:
    try:
        read_driver()
    except DeviceError:
        return
    pytest.skip("this machine has an NVIDIA driver")


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("device", ["cuda", "cuda:0,1"])
def test_without_a_gpu_a_checkpoint_is_not_even_exported(
    launch: "Launch", tiny_checkpoint: Path, tmp_path: Path, device: str
) -> None:
    service = launch(tiny_checkpoint, "--device", device, "--cache-dir", str(tmp_path / "cache"), module="berth")
    assert service.end() == 1
    [line] = service.log.splitlines()
    assert line.startswith("berth: there is no NVIDIA driver on this machine (libcuda.so.1")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("no_driver")
def test_artifact_for_the_cpu_is_not_served_for_a_gpu(launch: "Launch", tiny_artifact: Path) -> None:
    service = launch(tiny_artifact, "--device", "cuda")
    assert service.end() == 1
    [line] = service.log.splitlines()
    assert line == "berth: --device cuda: the artifact is for the CPU; export the model with --target cuda"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gpu_gives_the_vectors_of_the_cpu(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path, precision: Precision
) -> None:
    if reason := lack():
        pytest.skip(f"needs an NVIDIA GPU: {reason}")
    artifact = read_artifact(export(str(tiny_checkpoint), tmp_path / "cuda", "cuda", precision).folder)
    encoder = open_cuda_encoder(artifact, 0)
    check_golden_vectors(artifact, encoder)
    poolings = (pooling for pooling in Pooling if pooling is not Pooling.WORDS)
    features = tuple(ResolvedFeature(pooling, (3,)) for pooling in poolings)
    ids = [np.arange(length, dtype=np.int32) % 97 for length in (3, 40, 17, 1)]
    sequences = [TokenSequence(Encoding(each, np.zeros_like(each)), features) for each in ids]
    on_cpu = CpuEncoder(read_artifact(tiny_artifact))
    for ours, theirs in zip(encoder.encode(sequences), on_cpu.encode(sequences), strict=True):
        for vector, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(vector, expected, atol=1e-4 if precision == "fp32" else 5e-2)
