"""What `--device` and `--precision` choose, on a machine with a GPU and on one without."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

import berth.placement
from berth.artifact import Artifact, Manifest, Precision, Target, WeightBits
from berth.backends.cuda.devices import Driver
from berth.errors import DeviceError
from berth.placement import ExportTarget, check_precision, choose, gpus_for, indices

DRIVER = Driver((13, 0), ("NVIDIA H200", "NVIDIA L4"))


@pytest.fixture(autouse=True)
def _vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a processor with VNNI."""
    monkeypatch.setattr(berth.placement, "weight_bits_here", lambda: (8, "this processor has VNNI"))


@pytest.fixture
def no_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(berth.placement, "weight_bits_here", lambda: (7, "this processor has no VNNI"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Have a machine with two GPUs; gives what of them was required."""
    required: list[list[int]] = []

    def require(numbers: Sequence[int]) -> Driver:
        required.append(list(numbers))
        return DRIVER

    monkeypatch.setattr(berth.placement, "require_gpus", require)
    return required


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def require(_: Sequence[int]) -> Driver:
        raise DeviceError("there is no NVIDIA driver on this machine")

    monkeypatch.setattr(berth.placement, "require_gpus", require)


@pytest.fixture
def cuda_manifest(artifact: Artifact) -> Manifest:
    return artifact.manifest.model_copy(update={"target": "cuda", "precision": "fp16"})


@pytest.mark.parametrize(
    ("device", "precision", "export_target", "required"),
    [
        ("auto", None, ExportTarget("cuda", "fp16"), [[0]]),
        ("auto", "fp32", ExportTarget("cuda", "fp32"), [[0]]),
        ("auto", "fp16", ExportTarget("cuda", "fp16"), [[0]]),
        ("auto", "int8", ExportTarget("cpu", "int8"), []),
        ("cpu", None, ExportTarget("cpu", "fp32"), []),
        ("cuda", None, ExportTarget("cuda", "fp16"), [[0]]),
        ("cuda:0,1", "fp32", ExportTarget("cuda", "fp32"), [[0, 1]]),
    ],
)
def test_with_a_gpu(
    asked: list[list[int]],
    device: str,
    precision: Precision | None,
    export_target: ExportTarget,
    required: list[list[int]],
) -> None:
    assert choose(device, precision) == export_target
    assert asked == required


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("precision", [None, "fp32", "int8"])
def test_without_a_gpu_auto_is_the_cpu(precision: Precision | None) -> None:
    assert choose("auto", precision) == ExportTarget("cpu", precision or "fp32")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("device", "precision"), [("cuda", None), ("cuda:1", "fp32"), ("auto", "fp16")])
def test_without_a_gpu_what_needs_one_is_refused(device: str, precision: Precision | None) -> None:
    with pytest.raises(DeviceError, match="there is no NVIDIA driver"):
        choose(device, precision)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("device", "precision", "cure"), [("cuda", "int8", "fp16 or fp32"), ("cpu", "fp16", "fp32 or int8")]
)
def test_precision_of_the_other_device_is_refused_for_itself(device: str, precision: Precision, cure: str) -> None:
    with pytest.raises(DeviceError, match=f"--precision {precision}: .*{cure}"):
        choose(device, precision)


@pytest.mark.usefixtures("no_gpu")
def test_auto_says_what_it_chose_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    choose("auto", None)
    assert caplog.messages == ["--device auto chooses cpu: there is no NVIDIA driver on this machine"]


@pytest.mark.usefixtures("no_gpu", "no_vnni")
def test_the_processor_chooses_the_bits_of_int8s_weights(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert choose("cpu", "int8") == ExportTarget("cpu", "int8", 7)
    assert choose("auto", "int8") == ExportTarget("cpu", "int8", 7)
    assert caplog.messages[0] == "int8: weights in 7 bits: this processor has no VNNI"


@pytest.mark.usefixtures("no_vnni")
def test_in_another_precision_no_bits_are_chosen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert choose("cpu", "fp32") == ExportTarget("cpu", "fp32")
    assert not caplog.messages


@pytest.mark.parametrize("bits", [7, 8])
def test_bits_that_are_asked_for_are_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bits: WeightBits
) -> None:
    monkeypatch.setattr(berth.placement, "weight_bits_here", None)
    caplog.set_level(logging.INFO)
    assert choose("cpu", "int8", bits) == ExportTarget("cpu", "int8", bits)
    assert not caplog.messages


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("device", "precision", "given"),
    [("cpu", None, "fp32"), ("cpu", "fp32", "fp32"), ("auto", None, "fp16"), ("cuda", "fp32", "fp32")],
)
def test_bits_for_another_precision_are_refused(device: str, precision: Precision | None, given: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose(device, precision, 7)
    assert str(caught.value) == f"--int8-weights 7: is for --precision int8, and the precision is {given}"


@pytest.mark.parametrize("bits", [6, 0, "7"])
def test_what_are_no_bits_is_refused(bits: Any) -> None:
    with pytest.raises(DeviceError, match=f"--int8-weights {bits}: must be one of 7, 8"):
        choose("cpu", "int8", bits)


def test_each_kind_of_weights_has_a_place_of_its_own() -> None:
    targets = ExportTarget("cpu", "int8", 8), ExportTarget("cpu", "int8", 7), ExportTarget("cpu", "fp32", 7)
    assert [str(target) for target in targets] == ["cpu-int8", "cpu-int8w7", "cpu-fp32"]


@pytest.mark.usefixtures("asked")
def test_auto_names_the_gpu_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    choose("auto", None)
    assert caplog.messages == ["--device auto chooses cuda: NVIDIA H200"]


@pytest.mark.parametrize(
    ("device", "gpus"),
    [
        ("auto", {0: "NVIDIA H200"}),
        ("cuda", {0: "NVIDIA H200"}),
        ("cuda:1", {1: "NVIDIA L4"}),
        ("cuda:1,0", {1: "NVIDIA L4", 0: "NVIDIA H200"}),
    ],
)
@pytest.mark.usefixtures("asked")
def test_gpus_of_an_artifact(cuda_manifest: Manifest, device: str, gpus: dict[int, str]) -> None:
    assert gpus_for(device, cuda_manifest) == gpus


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_artifact_for_the_cpu_needs_no_gpu(artifact: Artifact, asked: list[list[int]], device: str) -> None:
    assert gpus_for(device, artifact.manifest) == {}
    assert asked == []


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(("target", "device"), [("cpu", "cuda:0"), ("cuda", "cpu")])
def test_artifact_for_the_other_device_is_refused(artifact: Artifact, target: Target, device: str) -> None:
    manifest = artifact.manifest.model_copy(update={"target": target})
    with pytest.raises(DeviceError, match=f"--device {device}: the artifact is for"):
        gpus_for(device, manifest)


@pytest.mark.usefixtures("no_gpu")
def test_artifact_for_cuda_never_runs_elsewhere(cuda_manifest: Manifest) -> None:
    with pytest.raises(DeviceError, match="there is no NVIDIA driver"):
        gpus_for("auto", cuda_manifest)


def test_numbers() -> None:
    assert [indices(device) for device in ("auto", "cpu", "cuda", "cuda:2", "cuda:0,3")] == [(), (), (0,), (2,), (0, 3)]


@pytest.mark.parametrize(
    "device", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:one", "cuda:0,", "cuda:0,0", "cuda:0;1", "cpu:0", "auto:1"]
)
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(DeviceError, match=f"--device {device}: must be auto, cpu, cuda, cuda:1 or"):
        indices(device)
    with pytest.raises(DeviceError, match=f"--device {device}: must be"):
        choose(device, None)


@pytest.mark.parametrize("precision", ["fp8", "", "float16"])
def test_what_is_no_precision_is_refused(precision: Any) -> None:
    with pytest.raises(DeviceError, match=f"--precision {precision}: must be one of fp32, fp16, int8"):
        choose("cpu", precision)


@pytest.mark.parametrize(
    ("target", "asked_for", "given"),
    [("cpu", "int8", "fp32"), ("cpu", "fp32", "int8"), ("cpu", "fp16", "fp32"), ("cuda", "fp32", "fp16")],
)
def test_artifact_in_another_precision_is_refused(
    artifact: Artifact, target: Target, asked_for: Precision, given: Precision
) -> None:
    manifest = artifact.manifest.model_copy(update={"target": target, "precision": given})
    with pytest.raises(DeviceError, match=f"--precision {asked_for}: the artifact is in {given}"):
        check_precision(asked_for, manifest)


@pytest.mark.parametrize(
    ("target", "asked_for", "given"),
    [("cpu", None, "int8"), ("cpu", "int8", "int8"), ("cuda", "fp16", "fp16"), ("cuda", "fp16", "fp32")],
)
def test_artifact_in_the_precision_that_was_asked_for(
    artifact: Artifact, target: Target, asked_for: Precision | None, given: Precision
) -> None:
    check_precision(asked_for, artifact.manifest.model_copy(update={"target": target, "precision": given}))


@pytest.mark.parametrize(
    ("asked_for", "precision", "bits", "is_in"),
    [
        (7, "int8", 8, "int8 with weights in 8 bits"),
        (8, "int8", 7, "int8 with weights in 7 bits"),
        (8, "fp32", None, "fp32"),
    ],
)
def test_artifact_of_other_weights_than_were_asked_for_is_refused(
    artifact: Artifact, asked_for: WeightBits, precision: Precision, bits: WeightBits | None, is_in: str
) -> None:
    manifest = artifact.manifest.model_copy(update={"precision": precision, "weight_bits": bits})
    with pytest.raises(DeviceError) as caught:
        check_precision(None, manifest, asked_for)
    cure = f"export the model in int8 with --int8-weights {asked_for}"
    assert str(caught.value) == f"--int8-weights {asked_for}: the artifact is in {is_in}; {cure}"


@pytest.mark.parametrize(("asked_for", "bits"), [(None, 7), (None, 8), (7, 7), (8, 8)])
def test_artifact_of_either_weights_is_taken(
    artifact: Artifact, asked_for: WeightBits | None, bits: WeightBits
) -> None:
    check_precision("int8", artifact.manifest.model_copy(update={"precision": "int8", "weight_bits": bits}), asked_for)
