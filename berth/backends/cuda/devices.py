"""The GPUs of this machine, and whether they can be used: the driver, ONNX Runtime's CUDA build, CUDA's libraries.

All of it is found out before anything is exported or loaded, so that what is missing is one line at the start. ONNX
Runtime itself would print its own words and go on without the GPU.
"""

import contextlib
import ctypes
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from berth.errors import DeviceError

DRIVER = "libcuda.so.1"
PROVIDER = "CUDAExecutionProvider"

MEANINGS = {
    100: "it sees no GPU: in a container, start it with --gpus all; else see nvidia-smi and CUDA_VISIBLE_DEVICES",
    803: "its kernel module and its library are of different versions: restart the machine",
    804: "it is too old for the CUDA compatibility package that is installed: update the driver",
}
"""What some of cuInit's results mean to who sees them (CUresult in cuda.h)."""

Load = Callable[[str], Any]
"""Loads a shared library by its name; raises `OSError`. A test has one of its own."""


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver: the newest CUDA it can run, as (13, 0), and the GPUs it shows this process, in their order."""

    cuda: tuple[int, int]
    gpus: tuple[str, ...]


def read_driver(load: Load = ctypes.CDLL) -> Driver:
    """Ask the driver; raises `DeviceError` where there is none, or none that works. No context is made on a GPU."""
    try:
        library = load(DRIVER)
    except OSError as error:
        raise DeviceError(f"there is no NVIDIA driver on this machine ({error})") from error

    def ask(function: str, *arguments: Any) -> None:
        if code := getattr(library, function)(*arguments):
            meaning = MEANINGS.get(code, "see nvidia-smi")
            raise DeviceError(f"the NVIDIA driver does not work: {function} gives {code}; {meaning}")

    version, count, handle, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    ask("cuInit", 0)
    ask("cuDriverGetVersion", ctypes.byref(version))
    ask("cuDeviceGetCount", ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        ask("cuDeviceGet", ctypes.byref(handle), index)
        ask("cuDeviceGetName", name, len(name), handle)
        gpus.append(name.value.decode(errors="replace"))
    return Driver((version.value // 1000, version.value % 1000 // 10), tuple(gpus))


def require_gpus(indices: Sequence[int], load: Load = ctypes.CDLL) -> Driver:
    """Find some GPUs and all that running on them needs; raises `DeviceError` with what is missing and the cure."""
    driver = read_driver(load)
    if missing := [index for index in indices if index >= len(driver.gpus)]:
        there = ", ".join(f"{index} ({name})" for index, name in enumerate(driver.gpus)) or "none"
        raise DeviceError(f"there is no GPU {missing[0]} on this machine; the driver shows: {there}")
    _require_runtime(driver, load)
    return driver


def cuda_major() -> int:
    """Tell for which CUDA the installed ONNX Runtime was built; raises `DeviceError` where it was for none."""
    import onnxruntime as ort  # noqa: PLC0415  # slow, and where there is no driver nobody needs it

    if PROVIDER not in ort.get_available_providers():
        raise DeviceError(
            f"the installed onnxruntime {ort.__version__} is the build for the CPU: remove it, then "
            "pip install '.[cuda]' in Berth's folder"
        )
    return int(ort.cuda_version.partition(".")[0])


def libraries(major: int) -> tuple[str, ...]:
    """Name what the CUDA provider is linked with; read off the one of onnxruntime-gpu 1.31.1 with `readelf -d`."""
    return (f"libcudart.so.{major}", f"libcublasLt.so.{major}", f"libcublas.so.{major}", "libcurand.so.10")


def _require_runtime(driver: Driver, load: Load) -> None:
    major = cuda_major()
    if driver.cuda[0] < major:
        there = ".".join(map(str, driver.cuda))
        raise DeviceError(
            f"the NVIDIA driver is too old: it runs CUDA {there}, and the installed onnxruntime-gpu was built for CUDA "
            f"{major}: update the driver"
        )
    preload()
    for name in libraries(major):
        try:
            load(name)
        except OSError as error:
            raise DeviceError(
                f"a library of CUDA {major} is missing ({error}): pip install '.[cuda]' in Berth's folder brings it, "
                "or its own folder has to be in LD_LIBRARY_PATH"
            ) from error


def preload() -> None:
    """Load CUDA's libraries from the Python packages that hold them; what is not there is said elsewhere."""
    import onnxruntime as ort  # noqa: PLC0415

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it did not find
        ort.preload_dlls()
