"""Staging: host memory from which a GPU copies without a detour. CUDA calls it pinned: it is never swapped out.

A batch's inputs are laid into one block, and its small outputs come back into it. A block that is free is used again,
and grows to the largest batch; there are as many as there are batches in flight.
"""

import ctypes
import logging
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PORTABLE = 1
"""cudaHostAllocPortable: pinned for every GPU of the process."""
ALIGNMENT = 256

Bytes = NDArray[np.uint8]

logger = logging.getLogger("berth")


class HostMemory(Protocol):
    """Where a GPU copies from and to."""

    def select_gpu(self) -> None:
        """Make the GPU this thread's own, on which the copies that it starts then are made."""

    def gpu_works(self) -> bool:
        """Say whether the GPU still does anything for this process."""

    def __call__(self, size: int) -> Bytes:
        """Allocate bytes."""


class PinnedMemory:
    """Allocates pinned memory for one GPU, by the CUDA library that ONNX Runtime has loaded."""

    def __init__(self, library: Any, device: int) -> None:
        self._library = library
        self._device = device
        library.cudaFreeHost.argtypes = [ctypes.c_void_p]
        library.cudaHostAlloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]

    def select_gpu(self) -> None:
        """Call cudaSetDevice, which holds for the thread that calls it."""
        self._library.cudaSetDevice(self._device)

    def gpu_works(self) -> bool:
        """Wait for all its work: after a fault, as an illegal access to memory, CUDA answers with that for ever."""
        return int(self._library.cudaDeviceSynchronize()) == 0

    def __call__(self, size: int) -> Bytes:
        """Allocate bytes; pageable ones, with a warning, where the system gives no pinned ones."""
        self.select_gpu()
        pointer = ctypes.c_void_p()
        code = self._library.cudaHostAlloc(ctypes.byref(pointer), size, PORTABLE)
        if code or not pointer.value:
            self._library.cudaGetLastError()  # else ONNX Runtime would find it, and take it for its own kernels'
            logger.warning("the system gives no pinned memory (CUDA error %d): copies to the GPU are slower", code)
            return np.empty(size, dtype=np.uint8)
        memory = (ctypes.c_uint8 * size).from_address(pointer.value)
        weakref.finalize(memory, self._library.cudaFreeHost, pointer.value).atexit = False  # the process' end frees it
        return np.ctypeslib.as_array(memory)


class Block:
    """Memory for the arrays of one batch."""

    def __init__(self, allocate: HostMemory) -> None:
        self._allocate = allocate
        self._memory: Bytes = np.empty(0, dtype=np.uint8)
        self._used = 0

    def prepare(self, sizes: Sequence[int]) -> None:
        """Forget what is in it, and have room for arrays of so many bytes."""
        self._used = 0
        size = sum(map(_padded, sizes))
        if size > len(self._memory):
            self._memory = np.empty(0, dtype=np.uint8)  # freed before the larger one is taken
            self._memory = self._allocate(size + size // 4)

    def array(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Give the next array in it, not initialised; valid until the block is prepared again."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        part = self._memory[self._used : self._used + size]
        self._used += _padded(size)
        return part.view(dtype).reshape(shape)


class Staging:
    """The blocks of an encoder, as many as batches have been in flight at once."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self._free: deque[Block] = deque()

    @contextmanager
    def block(self) -> Iterator[Block]:
        """Have a block to oneself."""
        try:
            block = self._free.pop()
        except IndexError:
            block = Block(self._memory)
        try:
            yield block
        finally:
            self._free.append(block)


def _padded(size: int) -> int:
    """Round bytes up, so that what follows them is aligned."""
    return -(-size // ALIGNMENT) * ALIGNMENT
