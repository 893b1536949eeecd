"""A graph that is wrong does not pass, however mildly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from berth.artifact import Precision, Target, WeightBits
from model_export import export as export_module
from model_export.graphs import write_graph
from model_export.network import Activation, Network
from model_export.weights import Weights

KINDS = [
    ("cpu", "fp32", None),
    ("cpu", "int8", 8),
    ("cpu", "int8", 7),
    ("cuda", "fp16", None),
    ("cuda", "fp32", None),
]


@pytest.mark.parametrize(("target", "precision", "bits"), KINDS)
@pytest.mark.parametrize(
    "mistake",
    [{"activation": Activation.GELU_TANH}, {"activation": Activation.RELU}, {"epsilon": 1e-4}],
)
def test_a_wrong_graph_is_refused(
    tiny_checkpoint: Path,
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    mistake: dict[str, Any],
    target: Target,
    precision: Precision,
    bits: WeightBits | None,
) -> None:
    def write(network: Network, *rest: Any) -> None:
        write_graph(replace(network, **mistake), *rest)

    monkeypatch.setattr(export_module, "write_graph", write)
    refused(tiny_checkpoint, " of the graph is off ", precision, target, bits)


@pytest.mark.parametrize(("target", "precision", "bits"), KINDS)
def test_a_swapped_weight_is_refused(
    tiny_checkpoint: Path,
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    target: Target,
    precision: Precision,
    bits: WeightBits | None,
) -> None:
    def write(network: Network, weights: Weights, *rest: Any) -> None:
        key, value = "layer.1.key.weight", "layer.1.value.weight"
        sources = weights.sources | {key: weights.sources[value], value: weights.sources[key]}
        write_graph(network, replace(weights, sources=sources), *rest)

    monkeypatch.setattr(export_module, "write_graph", write)
    refused(tiny_checkpoint, "hidden_state_2 of the graph is off the float64 forward pass by ", precision, target, bits)


def test_a_graph_that_cannot_be_loaded_is_refused(
    tiny_checkpoint: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(network: Network, weights: Weights, folder: Path, *rest: Any) -> None:
        write_graph(network, weights, folder, *rest)
        (folder / "weights.bin").write_bytes(b"")

    monkeypatch.setattr(export_module, "write_graph", write)
    refused(tiny_checkpoint, "ONNX Runtime does not load the graph: ")
