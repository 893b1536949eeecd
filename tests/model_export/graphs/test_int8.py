"""The graph in int8: near the float32 one, true to its own arithmetic, refused where a machine rounds wrongly."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from berth.artifact import GRAPH, WEIGHTS, Artifact, Precision, Target, read_artifact
from berth.backends.cpu.encoder import CpuEncoder, open_cpu_encoder
from berth.backends.golden import check_golden_vectors
from berth.contract import FakeEncoder
from berth.errors import ArtifactError
from berth.models import DEFAULT_MODEL
from berth.types import Encoding, Float32Array, TokenSequence, Vectors
from model_export import export as export_module
from model_export import reference
from model_export.checkpoint import find_checkpoint
from model_export.export import export
from model_export.graphs import write_graph
from model_export.network import Network
from model_export.quantize import RECTIFIED, SYMMETRIC
from model_export.reference import Float64Array, Rows
from model_export.weights import Weights

Run = Callable[[Path, Sequence[Encoding]], dict[str, Float32Array]]
Draw = Callable[..., list[Encoding]]
LENGTHS = (5, 40, 1, 2, 17, 40, 3)


def test_the_default_model_is_near_its_float32_form(
    minilm: Path, minilm_int8: Path, run_graph: Run, draw: Draw
) -> None:
    golden_vectors = [each.encoding for each in read_artifact(minilm).golden_vectors()]
    texts = [*golden_vectors, *draw([256, 12, 2, 100], vocab_size=30522, type_vocab_size=2)]
    exact, rounded = (_means(run_graph(folder, texts)["hidden_state_6"], texts) for folder in (minilm, minilm_int8))
    cosines = _cosines(rounded, exact)
    assert cosines.min() > 0.975
    assert cosines.mean() > 0.99


def test_neighbours_do_not_matter(tiny_int8: Path, run_graph: Run, draw: Draw) -> None:
    texts = draw(LENGTHS)
    together = run_graph(tiny_int8, texts)
    alone = [run_graph(tiny_int8, [text]) for text in texts]
    # Of the first layer, and the median: a code that lies between two falls to either, and what is behind it follows.
    first = np.concatenate([one["hidden_state_1"] for one in alone])
    assert np.median(np.abs(together["hidden_state_1"] - first)) < 1e-6
    for name, rows in together.items():
        assert _cosines(rows, np.concatenate([one[name] for one in alone])).min() > 0.999, name


def test_the_default_models_vectors_are_the_same_alone(minilm_int8: Path, run_graph: Run, draw: Draw) -> None:
    """What is asked for alone must match what was indexed in bulk, to the last bit."""
    texts = draw([12, 40, 40, 200, 7], vocab_size=30522, type_vocab_size=2)
    together = run_graph(minilm_int8, texts)["hidden_state_6"]
    alone = [run_graph(minilm_int8, [text])["hidden_state_6"] for text in texts]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_rows_of_zeros(
    tmp_path: Path, tiny_copy: Path, change_weights: Callable[..., None], run_graph: Run, draw: Draw
) -> None:
    def without_values(stored: dict[str, NDArray[Any]]) -> None:
        """Make the context zero throughout."""
        for layer, part in product(range(3), ("weight", "bias")):
            stored[f"encoder.layer.{layer}.attention.self.value.{part}"][:] = 0

    change_weights(tiny_copy, without_values)
    artifact = export(str(tiny_copy), tmp_path / "artifact", precision="int8").folder
    assert all(np.isfinite(rows).all() for rows in run_graph(artifact, draw(LENGTHS)).values())


def test_an_export_of_the_same_is_the_same(tiny_checkpoint: Path, tiny_int8: Path, tmp_path: Path) -> None:
    again = export(str(tiny_checkpoint), tmp_path / "again", precision="int8").manifest
    assert again.files == read_artifact(tiny_int8).manifest.files


def test_the_weights_of_the_layers_are_int8(tiny_int8: Path) -> None:
    tensors = onnx.load(tiny_int8 / GRAPH, load_external_data=False).graph.initializer
    types = {tensor.name: tensor.data_type for tensor in tensors if tensor.name.endswith(".weight")}
    rounded = {name for name, kind in types.items() if kind == onnx.TensorProto.INT8}
    parts = ("query", "key", "value", "attention_output", "inner", "outer")
    assert rounded == {f"layer.{layer}.{part}.weight" for layer in range(3) for part in parts}


def test_a_graph_that_rounds_otherwise_is_refused(
    tiny_checkpoint: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(network: Network, weights: Weights, folder: Path, target: Target, precision: Precision) -> None:
        write_graph(network, weights, folder, target, precision)
        _cut_weights(folder)

    monkeypatch.setattr(export_module, "write_graph", write)
    refused(tiny_checkpoint, "hidden_state_1 of the graph is off its own arithmetic by ", "int8")


@pytest.mark.parametrize("name", ["tiny_int8", "minilm_int8"])
def test_the_golden_vectors_agree_on_this_machine(request: pytest.FixtureRequest, name: str) -> None:
    open_cpu_encoder(read_artifact(request.getfixturevalue(name)))  # which checks them


def test_weights_that_saturate_are_found_by_the_golden_vectors(tiny_int8: Path) -> None:
    manifest = read_artifact(tiny_int8).manifest
    before = (tiny_int8 / WEIGHTS).read_bytes()
    try:
        _cut_weights(tiny_int8)
        artifact = Artifact(tiny_int8, manifest)
        with pytest.raises(ArtifactError, match="a driver, library or processor computes wrongly"):
            check_golden_vectors(artifact, CpuEncoder(artifact, exact=True))
    finally:
        (tiny_int8 / WEIGHTS).write_bytes(before)


@pytest.mark.parametrize(("name", "checkpoint"), [("tiny_int8", "tiny_checkpoint"), ("minilm_int8", None)])
def test_sums_that_saturate_are_found_by_the_golden_vectors(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, checkpoint: str | None
) -> None:
    """On x86 without VNNI, two products of u8 and s8 are added in 16 bits, which do not hold every sum."""
    artifact = read_artifact(request.getfixturevalue(name))
    source = str(request.getfixturevalue(checkpoint)) if checkpoint else DEFAULT_MODEL
    model = export_module._read(find_checkpoint(source))
    first = replace(model.network, layers=1)

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        states = reference.forward(first, model.weights, [sequence.encoding for sequence in sequences], "int8")
        return [[text.hidden[1].mean(axis=0).astype(np.float32)] for text in states]

    check_golden_vectors(artifact, FakeEncoder(encode))
    monkeypatch.setattr(reference, "_int8_linear", _saturating_linear)
    with pytest.raises(ArtifactError, match="a driver, library or processor computes wrongly"):
        check_golden_vectors(artifact, FakeEncoder(encode))


def _saturating_linear(weights: Weights, name: str) -> Rows:
    """Compute what `reference` does, but for pairs of products, whose sums stop at the ends of 16 bits."""
    matrix, bias = weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"]
    columns = np.abs(matrix).max(axis=1) / 127
    codes = np.rint(matrix / columns[:, None]).T.astype(np.int32)
    coding = RECTIFIED if name.endswith(".outer") else SYMMETRIC

    def linear(x: Float64Array) -> Float64Array:
        largest = x.max(axis=1) if coding is RECTIFIED else np.abs(x).max(axis=1)
        steps = np.maximum(largest / coding.largest, coding.smallest_step)[:, None]
        rows = (np.clip(np.rint(x / steps), -coding.zero, coding.largest) + coding.zero).astype(np.int32)
        total = np.zeros((len(rows), codes.shape[1]))
        for k in range(0, len(codes), 2):
            pair = rows[:, k, None] * codes[k] + rows[:, k + 1, None] * codes[k + 1]
            total += np.clip(pair, -(2**15), 2**15 - 1)
        result: Float64Array = (total - coding.zero * codes.sum(axis=0)) * steps * columns + bias
        return result

    return linear


def _cut_weights(folder: Path) -> None:
    """Cut the codes of one matrix at 100 of 127."""
    tensors = onnx.load(folder / GRAPH, load_external_data=False).graph.initializer
    [tensor] = [tensor for tensor in tensors if tensor.name == "layer.0.inner.weight"]
    place = {entry.key: entry.value for entry in tensor.external_data}
    codes = np.memmap(folder / WEIGHTS, np.int8, "r+", int(place["offset"]), (int(place["length"]),))
    codes[:] = np.clip(codes, -100, 100)
    codes.flush()


def _means(rows: Float32Array, texts: Sequence[Encoding]) -> Float64Array:
    ends = np.cumsum([len(text) for text in texts])[:-1]
    return np.stack([part.mean(axis=0, dtype=np.float64) for part in np.split(rows, ends)])


def _cosines(actual: Any, expected: Any) -> Float64Array:
    cosines: Float64Array = (actual * expected).sum(axis=1) / (
        np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    )
    return cosines
