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

from berth.artifact import GRAPH, WEIGHTS, Artifact, Precision, Target, WeightBits, read_artifact
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


@pytest.mark.parametrize(("name", "lowest", "mean"), [("minilm_int8", 0.975, 0.99), ("minilm_int8_w7", 0.96, 0.985)])
def test_the_default_model_is_near_its_float32_form(
    request: pytest.FixtureRequest, minilm: Path, run_graph: Run, draw: Draw, name: str, lowest: float, mean: float
) -> None:
    folders = minilm, request.getfixturevalue(name)
    golden_vectors = [each.encoding for each in read_artifact(minilm).golden_vectors()]
    texts = [*golden_vectors, *draw([256, 12, 2, 100], vocab_size=30522, type_vocab_size=2)]
    exact, rounded = (_means(run_graph(folder, texts)["hidden_state_6"], texts) for folder in folders)
    cosines = _cosines(rounded, exact)
    assert cosines.min() > lowest
    assert cosines.mean() > mean


@pytest.mark.parametrize("name", ["tiny_int8", "tiny_int8_w7"])
def test_neighbours_do_not_matter(request: pytest.FixtureRequest, run_graph: Run, draw: Draw, name: str) -> None:
    texts, folder = draw(LENGTHS), request.getfixturevalue(name)
    together = run_graph(folder, texts)
    alone = [run_graph(folder, [text]) for text in texts]
    # Of the first layer, and the median: a code that lies between two falls to either, and what is behind it follows.
    first = np.concatenate([one["hidden_state_1"] for one in alone])
    assert np.median(np.abs(together["hidden_state_1"] - first)) < 1e-6
    for output, rows in together.items():
        assert _cosines(rows, np.concatenate([one[output] for one in alone])).min() > 0.999, output


@pytest.mark.parametrize("name", ["minilm_int8", "minilm_int8_w7"])
def test_the_default_models_vectors_are_the_same_alone(
    request: pytest.FixtureRequest, run_graph: Run, draw: Draw, name: str
) -> None:
    """What is asked for alone must match what was indexed in bulk, to the last bit."""
    folder = request.getfixturevalue(name)
    texts = draw([12, 40, 40, 200, 7], vocab_size=30522, type_vocab_size=2)
    together = run_graph(folder, texts)["hidden_state_6"]
    alone = [run_graph(folder, [text])["hidden_state_6"] for text in texts]
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
    again = export(str(tiny_checkpoint), tmp_path / "again", precision="int8", int8_weights=8).manifest
    assert again.files == read_artifact(tiny_int8).manifest.files


def test_the_weights_of_the_layers_are_int8(tiny_int8: Path) -> None:
    tensors = onnx.load(tiny_int8 / GRAPH, load_external_data=False).graph.initializer
    types = {tensor.name: tensor.data_type for tensor in tensors if tensor.name.endswith(".weight")}
    rounded = {name for name, kind in types.items() if kind == onnx.TensorProto.INT8}
    parts = ("query", "key", "value", "attention_output", "inner", "outer")
    assert rounded == {f"layer.{layer}.{part}.weight" for layer in range(3) for part in parts}


@pytest.mark.parametrize(("name", "last"), [("tiny_int8", 127), ("tiny_int8_w7", 63)])
def test_every_matrix_uses_all_of_its_codes_and_none_past_them(
    request: pytest.FixtureRequest, name: str, last: int
) -> None:
    codes = _codes(request.getfixturevalue(name))
    assert len(codes) == 18
    for matrix, rows in codes.items():
        assert np.abs(rows.astype(int)).max() == last, matrix


@pytest.mark.parametrize("bits", [7, 8])
def test_a_graph_that_rounds_otherwise_is_refused(
    tiny_checkpoint: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch, bits: WeightBits
) -> None:
    def write(network: Network, weights: Weights, folder: Path, *rest: Any) -> None:
        write_graph(network, weights, folder, *rest)
        _cut_weights(folder, 100 if bits == 8 else 50)

    monkeypatch.setattr(export_module, "write_graph", write)
    refused(tiny_checkpoint, "hidden_state_1 of the graph is off its own arithmetic by ", "int8", int8_weights=bits)


@pytest.mark.parametrize(("written", "asked"), [(7, 8), (8, 7)])
def test_a_graph_of_other_bits_than_were_asked_for_is_refused(
    tiny_checkpoint: Path,
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    written: WeightBits,
    asked: WeightBits,
) -> None:
    def write(
        network: Network, weights: Weights, folder: Path, target: Target, precision: Precision, _: WeightBits
    ) -> None:
        write_graph(network, weights, folder, target, precision, written)

    monkeypatch.setattr(export_module, "write_graph", write)
    refused(tiny_checkpoint, "hidden_state_1 of the graph is off its own arithmetic by ", "int8", int8_weights=asked)


@pytest.mark.parametrize("name", ["tiny_int8", "tiny_int8_w7", "minilm_int8", "minilm_int8_w7"])
def test_the_golden_vectors_agree_on_this_machine(request: pytest.FixtureRequest, name: str) -> None:
    open_cpu_encoder(read_artifact(request.getfixturevalue(name)))  # which checks them


def test_weights_that_saturate_are_found_by_the_golden_vectors(tiny_int8: Path) -> None:
    manifest = read_artifact(tiny_int8).manifest
    before = (tiny_int8 / WEIGHTS).read_bytes()
    try:
        _cut_weights(tiny_int8, 100)
        artifact = Artifact(tiny_int8, manifest)
        with pytest.raises(ArtifactError, match="a driver, library or processor computes wrongly"):
            check_golden_vectors(artifact, CpuEncoder(artifact, exact=True))
    finally:
        (tiny_int8 / WEIGHTS).write_bytes(before)


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("tiny_int8", "tiny_checkpoint"),
        ("minilm_int8", None),
        ("tiny_int8_w7", "tiny_checkpoint"),
        ("minilm_int8_w7", None),
    ],
)
def test_sums_that_saturate_are_found_by_the_golden_vectors(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, checkpoint: str | None
) -> None:
    """On x86 without VNNI, two products of u8 and s8 are added in 16 bits: of weights in 7 bits they hold every sum."""
    artifact = read_artifact(request.getfixturevalue(name))
    bits = artifact.manifest.weight_bits
    source = str(request.getfixturevalue(checkpoint)) if checkpoint else DEFAULT_MODEL
    model = export_module._read(find_checkpoint(source))
    first = replace(model.network, layers=1)

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        states = reference.forward(first, model.weights, [sequence.encoding for sequence in sequences], "int8", bits)
        return [[text.hidden[1].mean(axis=0).astype(np.float32)] for text in states]

    check_golden_vectors(artifact, FakeEncoder(encode))
    monkeypatch.setattr(reference, "_int8_linear", _saturating_linear)
    if bits == 7:
        check_golden_vectors(artifact, FakeEncoder(encode))
        return
    with pytest.raises(ArtifactError, match="a driver, library or processor computes wrongly"):
        check_golden_vectors(artifact, FakeEncoder(encode))


def _saturating_linear(weights: Weights, name: str, weight_bits: WeightBits) -> Rows:
    """Compute what `reference` does, but for pairs of products, whose sums stop at the ends of 16 bits."""
    matrix, bias = weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"]
    columns = np.abs(matrix).max(axis=1) / (127 if weight_bits == 8 else 63)
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


def _cut_weights(folder: Path, last: int) -> None:
    """Cut the codes of one matrix."""
    codes = _codes(folder)["layer.0.inner.weight"]
    codes[:] = np.clip(codes, -last, last)
    codes.flush()


def _codes(folder: Path) -> "dict[str, np.memmap[Any, np.dtype[np.int8]]]":
    """Give the codes of each matrix in int8, where they are kept, by name."""
    tensors = onnx.load(folder / GRAPH, load_external_data=False).graph.initializer
    places = {
        tensor.name: {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
        for tensor in tensors
        if tensor.data_type == onnx.TensorProto.INT8
    }
    return {
        name: np.memmap(folder / WEIGHTS, np.int8, "r+", place["offset"], (place["length"],))
        for name, place in places.items()
    }


def _means(rows: Float32Array, texts: Sequence[Encoding]) -> Float64Array:
    ends = np.cumsum([len(text) for text in texts])[:-1]
    return np.stack([part.mean(axis=0, dtype=np.float64) for part in np.split(rows, ends)])


def _cosines(actual: Any, expected: Any) -> Float64Array:
    cosines: Float64Array = (actual * expected).sum(axis=1) / (
        np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    )
    return cosines
