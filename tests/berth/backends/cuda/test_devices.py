"""The driver, ONNX Runtime's build and CUDA's libraries: a machine without a GPU, and whatever else can lack."""

from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest

from berth.backends.cuda.devices import DRIVER, Driver, Load, read_driver, require_gpus
from berth.errors import DeviceError

H200 = "NVIDIA H200"


class FakeDriver:
    """libcuda.so.1, as far as it is asked; its functions write through the pointers they are given."""

    def __init__(self, version: int = 13000, gpus: tuple[str, ...] = (H200, H200), init: int = 0) -> None:
        self._version, self._gpus, self._init = version, gpus, init

    def cuInit(self, flags: int) -> int:  # noqa: N802  # the library's name
        assert flags == 0
        return self._init

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self._version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:  # noqa: N802
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:  # noqa: N802
        name.value = self._gpus[handle.value].encode()[: size - 1]
        return 0


def loading(driver: FakeDriver | None, *, without: str = "no library") -> Load:
    """Make what loads libraries: this driver and any other library, but for one."""

    def load(name: str) -> Any:
        if (name == DRIVER and driver is None) or name.startswith(without):
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    return load


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give a function that makes the installed ONNX Runtime look like one that was built for CUDA."""

    def build(version: str) -> None:
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "cuda_version", version)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libnothing.so"))

    return build


def test_driver_says_what_it_runs_and_shows() -> None:
    assert read_driver(loading(FakeDriver(12040, (H200, "NVIDIA L4")))) == Driver((12, 4), (H200, "NVIDIA L4"))


def test_machine_without_a_driver() -> None:
    with pytest.raises(DeviceError, match=r"there is no NVIDIA driver on this machine \(libcuda\.so\.1: cannot open"):
        read_driver(loading(None))


@pytest.mark.parametrize(
    ("code", "message"),
    [(100, "sees no GPU.*--gpus all"), (803, "restart the machine"), (999, "gives 999; see nvidia")],
)
def test_driver_that_does_not_work(code: int, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        read_driver(loading(FakeDriver(init=code)))


def test_all_is_there(cuda_build: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    cuda_build("13.0")
    assert require_gpus([1], loading(FakeDriver())).gpus == (H200, H200)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("gpus", "there"), [((H200,), r"0 \(NVIDIA H200\)"), ((), "none")])
def test_gpu_that_does_not_exist(gpus: tuple[str, ...], there: str) -> None:
    with pytest.raises(DeviceError, match=f"there is no GPU 3 on this machine; the driver shows: {there}"):
        require_gpus([3], loading(FakeDriver(gpus=gpus)))


def test_build_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match=r"build for the CPU.*pip install '\.\[cuda\]'"):
        require_gpus([0], loading(FakeDriver()))


@pytest.mark.parametrize(("version", "too_old"), [(12080, True), (12090, True), (13000, False), (13020, False)])
def test_driver_must_run_what_onnx_runtime_was_built_for(
    cuda_build: Callable[[str], None], version: int, too_old: bool
) -> None:
    cuda_build("13.0")
    load = loading(FakeDriver(version))
    if too_old:
        with pytest.raises(DeviceError, match=r"too old: it runs CUDA 12\.[89], and .* CUDA 13: update the driver"):
            require_gpus([0], load)
    else:
        require_gpus([0], load)


@pytest.mark.parametrize("library", ["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"])
def test_library_that_is_missing(cuda_build: Callable[[str], None], library: str) -> None:
    cuda_build("13.0")
    with pytest.raises(DeviceError, match=rf"a library of CUDA 13 is missing \({library}: .*LD_LIBRARY_PATH"):
        require_gpus([0], loading(FakeDriver(), without=library))


def test_every_error_is_one_line(cuda_build: Callable[[str], None]) -> None:
    cuda_build("13.0")
    for load in (loading(None), loading(FakeDriver(init=100)), loading(FakeDriver(), without="libcurand")):
        with pytest.raises(DeviceError) as error:
            require_gpus([0], load)
        assert "\n" not in str(error.value)
