"""The graph for the CPU: its form, and that a text's vectors do not depend on its neighbours."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.artifact import GRAPH, WEIGHTS
from berth.backends.cpu.packing import INPUTS
from berth.types import Encoding, Float32Array
from model_export.tensor_file import PAGE

Run = Callable[[Path, Sequence[Encoding]], dict[str, Float32Array]]
Draw = Callable[..., list[Encoding]]


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_neighbours_do_not_matter(tiny_artifact: Path, run_graph: Run, draw: Draw, lengths: list[int]) -> None:
    _same_alone(tiny_artifact, run_graph, draw(lengths))


def test_neighbours_do_not_matter_to_the_default_model(minilm: Path, run_graph: Run, draw: Draw) -> None:
    _same_alone(minilm, run_graph, draw([3, 256, 1, 30, 30, 77], vocab_size=30522, type_vocab_size=2))


def test_the_graph_is_small_and_its_weights_can_be_mapped(tiny_artifact: Path) -> None:
    model = onnx.load(tiny_artifact / GRAPH, load_external_data=False)
    onnx.checker.check_model(tiny_artifact / GRAPH, full_check=False)
    assert [value.name for value in model.graph.input] == list(INPUTS)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert types.pop("attention_bias") == onnx.TensorProto.FLOAT
    assert types.pop("alone") == onnx.TensorProto.BOOL
    assert set(types.values()) == {onnx.TensorProto.INT32}
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in model.graph.initializer]
    outside = [place for place in places if place]
    assert {place["location"] for place in outside} == {WEIGHTS}
    assert all(int(place["offset"]) % PAGE == 0 for place in outside)
    assert (tiny_artifact / GRAPH).stat().st_size < 50_000


def _same_alone(artifact: Path, run_graph: Run, texts: list[Encoding]) -> None:
    together = run_graph(artifact, texts)
    alone = [run_graph(artifact, [text]) for text in texts]
    for name, rows in together.items():
        np.testing.assert_allclose(rows, np.concatenate([one[name] for one in alone]), rtol=0, atol=1e-5, err_msg=name)
