"""A session that is on the GPU or not at all; here, where there is none, it is not."""

from typing import Any

import onnxruntime
import pytest

from berth.artifact import Artifact
from berth.backends.cuda.session import open_session, provider_options
from berth.errors import ArtifactError, DeviceError


def test_session_that_onnx_runtime_made_for_the_cpu_is_refused(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ONNX Runtime does where a library is missing: it prints, and makes a session without the GPU."""
    make = onnxruntime.InferenceSession
    asked: list[Any] = []

    def without_the_gpu(graph: Any, options: Any, *, providers: Any, **rest: Any) -> Any:
        asked.append((providers, rest))
        return make(graph, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_the_gpu)
    with pytest.raises(DeviceError, match="does not take GPU 1"):
        open_session(artifact, 1, 1 << 30)
    [([(provider, options)], rest)] = asked
    assert provider == "CUDAExecutionProvider"
    assert (options["device_id"], options["gpu_mem_limit"]) == ("1", str(1 << 30))
    assert rest == {"enable_fallback": 0}


def test_graph_that_cannot_be_loaded_is_refused(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel for PackedMultiHeadAttention")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(ArtifactError, match=r"cannot load .*model\.onnx on GPU 0: no kernel"):
        open_session(artifact, 0)


def test_memory_is_bounded_only_where_that_is_asked() -> None:
    assert "gpu_mem_limit" not in provider_options(0, None)
    assert provider_options(2, 5_000_000_000)["gpu_mem_limit"] == "5000000000"
