"""A session on a GPU that is none, which takes and gives numbers by address, as ONNX Runtime's does under IO binding;
and the runner's threads."""

import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.inference.cuda_graph import INPUTS, POOLED, POOLED_MAX

Feeds = Mapping[str, NDArray[Any]]
Compute = Callable[[Feeds], Mapping[str, NDArray[Any]]]


def at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """See the memory at an address as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=dtype).reshape(shape)


@dataclass
class Binding:
    """What was bound. Inputs are copied when they are bound, as to a GPU."""

    feeds: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        assert (device, number) == ("cpu", 0)
        self.feeds[name] = at(address, shape, dtype).copy()

    def bind_output(
        self, name: str, device: str, number: int, dtype: Any, shape: tuple[int, ...], address: int
    ) -> None:
        assert (device, number) == ("cpu", 0)
        self.outputs[name] = at(address, shape, dtype)


@dataclass(frozen=True)
class Node:
    """An input or output as ONNX Runtime describes it."""

    name: str
    type: str


class FakeSession:
    """Computes by a function of the feeds, which gives every output of the graph; keeps what it was asked."""

    def __init__(self, compute: Compute, outputs: Mapping[str, str], inputs: set[str] | None = None) -> None:
        self._compute = compute
        self._outputs = outputs
        self._inputs = set(INPUTS) if inputs is None else inputs
        self.runs: list[Binding] = []
        self.options: list[Any] = []

    def get_inputs(self) -> list[Node]:
        return [Node(name, "tensor(float)" if name == "pool_weights" else "tensor(int32)") for name in self._inputs]

    def get_outputs(self) -> list[Node]:
        return [Node(*pair) for pair in self._outputs.items()]

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        self.runs.append(binding)
        self.options.append(options)
        assert set(binding.feeds) == self._inputs
        assert binding.outputs, "nothing is fetched"
        values = self._compute(binding.feeds)
        for name, array in binding.outputs.items():
            assert values[name].shape == array.shape, name
            array[...] = values[name]


class PlainMemory:
    """Host memory that no GPU knows of; counts what is taken of it."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.works = True

    def gpu_works(self) -> bool:
        return self.works

    def select_gpu(self) -> None:
        pass

    def __call__(self, size: int) -> NDArray[np.uint8]:
        self.taken.append(size)
        return np.zeros(size, dtype=np.uint8)


MakeSession = Callable[..., FakeSession]


@pytest.fixture
def plain_memory() -> PlainMemory:
    """Give memory of the host."""
    return PlainMemory()


@pytest.fixture
def make_session() -> MakeSession:
    """Give a function that makes a session of what it computes, the type of its hidden states, and their number."""

    def make(
        compute: Compute, hidden_type: str = "tensor(float16)", layers: int = 3, inputs: set[str] | None = None
    ) -> FakeSession:
        outputs = {f"hidden_state_{layer}": hidden_type for layer in range(layers + 1)}
        outputs |= {"pooler_output": hidden_type, POOLED: "tensor(float)", POOLED_MAX: "tensor(float)"}
        return FakeSession(compute, outputs, inputs)

    return make


@pytest.fixture
def encoder_threads() -> Callable[[], list[threading.Thread]]:
    """Give a function that lists the encoder threads this test has started and that still run."""
    others = set(threading.enumerate())
    return lambda: [
        thread for thread in threading.enumerate() if thread.name.startswith("encoder-") and thread not in others
    ]
