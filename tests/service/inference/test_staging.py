"""Blocks of host memory, and CUDA's pinned memory from a library that is not CUDA's."""

import ctypes
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.inference.staging import Block, PinnedMemory, Staging

if TYPE_CHECKING:
    from tests.service.inference.conftest import PlainMemory


class FakeRuntime:
    """libcudart, with a stock of memory; its functions are objects, as ctypes' are."""

    class Function:
        def __init__(self, call: Any) -> None:
            self._call = call

        def __call__(self, *arguments: Any) -> int:
            return int(self._call(*arguments))

    def __init__(self, stock: int = 1 << 20) -> None:
        self.devices: list[int] = []
        self.held: dict[int, Any] = {}
        self.left = stock
        self.cudaSetDevice = self.Function(self._select)
        self.cudaHostAlloc = self.Function(self._allocate)
        self.last_error = 0
        self.cudaGetLastError = self.Function(self._take_last_error)
        self.fault = 0
        self.cudaDeviceSynchronize = self.Function(lambda: self.fault)
        self.cudaFreeHost = self.Function(lambda address: self.held.pop(address) is None)

    def _select(self, device: int) -> int:
        self.devices.append(device)
        return 0

    def _take_last_error(self) -> int:
        last, self.last_error = self.last_error, 0
        return last

    def _allocate(self, pointer: Any, size: int, flags: int) -> int:
        assert flags == 1
        if size > self.left:
            self.last_error = 2
            return 2
        memory = ctypes.create_string_buffer(size)
        pointer._obj.value = ctypes.addressof(memory)
        self.held[ctypes.addressof(memory)] = memory
        return 0


def test_arrays_of_a_block_do_not_overlap(plain_memory: "PlainMemory") -> None:
    block = Block(plain_memory)
    block.prepare([4 * 7, 2 * 6, 4])
    arrays = [block.array((7,), np.int32), block.array((2, 3), np.float16), block.array((1,), np.float32)]
    for number, array in enumerate(arrays):
        array[...] = number + 1
    assert [array.ravel().tolist() for array in arrays] == [[1] * 7, [2] * 6, [3]]
    assert all(array.ctypes.data % array.itemsize == 0 for array in arrays)


def test_block_is_used_again_and_grows(plain_memory: "PlainMemory") -> None:
    block = Block(plain_memory)
    for size in (1000, 10, 1000, 5000, 4999):
        block.prepare([size])
        assert len(block.array((size,), np.uint8)) == size
    assert len(plain_memory.taken) == 2
    assert plain_memory.taken[0] >= 1000
    assert plain_memory.taken[1] >= 5000


def test_there_are_as_many_blocks_as_batches_in_flight(plain_memory: "PlainMemory") -> None:
    staging = Staging(plain_memory)
    with staging.block() as first, staging.block() as second:
        assert first is not second
    with staging.block() as third:
        assert third in {first, second}


def test_block_comes_back_from_a_batch_that_failed(plain_memory: "PlainMemory") -> None:
    staging = Staging(plain_memory)
    with pytest.raises(KeyError), staging.block() as first:
        raise KeyError
    with staging.block() as second:
        assert second is first


def test_pinned_memory_is_that_of_its_gpu_and_is_freed() -> None:
    library = FakeRuntime()
    memory = PinnedMemory(library, 3)
    array = memory(1000)
    array[...] = 7
    assert library.devices == [3]
    [(address, held)] = library.held.items()
    assert array.ctypes.data == address
    assert held.raw == bytes([7]) * 1000
    part = array[10:20]
    del array
    gc.collect()
    assert library.held, "a part of it is still in use"
    del part
    gc.collect()
    assert not library.held


def test_where_none_is_given_there_is_other_memory_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    library = FakeRuntime(stock=10)
    assert len(PinnedMemory(library, 0)(1000)) == 1000
    assert not library.last_error, "ONNX Runtime would take it for a failure of its own"
    assert "no pinned memory (CUDA error 2)" in caplog.text


def test_gpu_that_has_failed_is_known_by_its_answer() -> None:
    library = FakeRuntime()
    memory = PinnedMemory(library, 0)
    assert memory.gpu_works()
    library.fault = 700
    assert not memory.gpu_works()
