"""From a name to an encoder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from berth.artifact import Manifest, WeightBits
from berth.encoder import Encoder
from berth.errors import ArtifactError, DeviceError, ModelNotFoundError
from berth.models import find_artifact
from berth.placement import ExportTarget
from berth.types import Pooling
from tests.berth.encoder.noting import WIDTH


@pytest.mark.parametrize("kind", [str, Path])
def test_an_artifact_is_loaded(tiny_artifact: Path, tmp_path: Path, kind: type[str] | type[Path]) -> None:
    with Encoder(kind(tiny_artifact), device="cpu", threads=1, cache_dir=tmp_path) as encoder:
        assert encoder.encode(["hello world"]).shape == (1, 60)
        assert encoder.manifest.layers == 3
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_exported_first_and_found_the_second_time(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent)
    with Encoder(Path(tiny_checkpoint.name), device="cpu", cache_dir=tmp_path) as first:
        expected = first.encode("hello world")
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is exported any more
    with Encoder(str(tiny_checkpoint), device="cpu", cache_dir=str(tmp_path)) as second:
        np.testing.assert_array_equal(second.encode("hello world"), expected)


def test_a_path_is_a_folder_and_no_model_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in (Path("no/such-folder"), "./no/such-folder"):
        with pytest.raises(ModelNotFoundError, match="there is no such folder"):
            Encoder(model, device="cpu", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("device", ["gpu", "CPU", "", "cuda:", "cuda:one", "cuda:0,0", "cuda:-1", "mps"])
def test_a_device_that_there_is_not_is_named(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path, device: str
) -> None:
    for model in (tiny_artifact, tiny_checkpoint):
        with pytest.raises(DeviceError, match=f"--device {device}: must be auto, cpu, cuda"):
            Encoder(model, device=device, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is exported for it"


def test_a_precision_that_there_is_not_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="--precision float16: must be one of fp32, fp16, int8"):
        Encoder(tiny_checkpoint, device="cpu", precision="float16", cache_dir=tmp_path)  # type: ignore[arg-type]


def test_an_artifact_in_another_precision_is_refused(tiny_artifact: Path) -> None:
    with pytest.raises(DeviceError, match="--precision int8: the artifact is in fp32"):
        Encoder(tiny_artifact, device="cpu", precision="int8")


@pytest.mark.parametrize("bits", [7, 8])
def test_int8s_weights_have_the_bits_that_are_asked_for(
    tiny_checkpoint: Path, tmp_path: Path, bits: WeightBits
) -> None:
    with Encoder(
        tiny_checkpoint, device="cpu", threads=1, cache_dir=tmp_path, precision="int8", int8_weights=bits
    ) as encoder:
        assert encoder.manifest.weight_bits == bits
        assert np.isfinite(encoder.encode("hello world")).all()
    [folder] = tmp_path.glob("*/*")
    other: WeightBits = 7 if bits == 8 else 8
    with pytest.raises(DeviceError, match=f"--int8-weights {other}: the artifact is in int8 with weights in {bits}"):
        Encoder(folder, device="cpu", int8_weights=other)


def test_bits_are_for_int8_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="--int8-weights 7: is for --precision int8, and the precision is fp32"):
        Encoder(tiny_checkpoint, device="cpu", int8_weights=7, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is exported for it"


def test_a_damaged_artifact_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "weights.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"weights\.bin is not the file that was exported"):
        Encoder(tiny_copy, device="cpu")


def test_an_encoder_loads_neither_http_nor_the_export(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """With the model in the cache, from its name to its vectors."""
    find_artifact(str(tiny_checkpoint), ExportTarget("cpu", "fp32"), tmp_path)
    code = (
        "import sys, berth\n"
        "with berth.Encoder(sys.argv[1], device='cpu', cache_dir=sys.argv[2]) as encoder:\n"
        "    assert encoder.encode('hello').shape == (60,)\n"
        "    assert encoder.features(['hello'], [berth.Feature('none')])[0][0].shape[1] == 60\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code, str(tiny_checkpoint), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    loaded = set(result.stdout.split())
    assert {"berth", "numpy", "onnxruntime", "tokenizers"} <= loaded
    assert not loaded & {"fastapi", "starlette", "uvicorn", "pydantic_settings", "prometheus_client"}
    assert not loaded & {"service", "model_export", "onnx", "safetensors", "huggingface_hub", "torch", "transformers"}


def test_the_manifest_says_what_the_model_is(fake: Encoder) -> None:
    manifest = fake.manifest
    assert isinstance(manifest, Manifest)
    assert (manifest.hidden_size, manifest.max_tokens, manifest.pooling) == (WIDTH, 256, Pooling.MEAN)
