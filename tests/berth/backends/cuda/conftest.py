"""A session on a GPU that is none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from berth.backends.cuda.graph import INPUTS, POOLED, POOLED_MAX

Feeds = Mapping[str, NDArray[Any]]
Compute = Callable[[Feeds], Mapping[str, NDArray[Any]]]


@dataclass
class Run:
    """What was fed and what came of it."""

    feeds: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


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
        self._types = {name: np.float16 if "float16" in kind else np.float32 for name, kind in outputs.items()}
        self.runs: list[Run] = []
        self.options: list[Any] = []

    def get_inputs(self) -> list[Node]:
        return [Node(name, "tensor(float)" if name == "pool_weights" else "tensor(int32)") for name in self._inputs]

    def get_outputs(self) -> list[Node]:
        return [Node(*pair) for pair in self._outputs.items()]

    def run(self, names: list[str], feeds: dict[str, NDArray[Any]], options: Any = None) -> list[NDArray[Any]]:
        assert set(feeds) == self._inputs
        assert names, "nothing is fetched"
        self.options.append(options)
        values = self._compute(feeds)
        self.runs.append(Run(feeds, {name: values[name].astype(self._types[name]) for name in names}))
        return list(self.runs[-1].outputs.values())


MakeSession = Callable[..., FakeSession]


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
