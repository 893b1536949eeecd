"""The graph in int8: near the float32 one, true to its own arithmetic, refused where a machine rounds wrongly."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from transformers import BertModel

from model_export import export as export_module
from model_export import reference
from model_export.checkpoint import DEFAULT_ID, find_checkpoint
from model_export.export import export
from model_export.graphs import write_graphs
from model_export.network import Network
from model_export.quantize import RECTIFIED, SYMMETRIC
from model_export.reference import Float64Array, Rows
from model_export.weights import Weights
from service.errors import ArtifactError
from service.inference import encoder as encoder_module
from service.inference.artifact import EXACT_PRODUCTS, GRAPH, WEIGHTS, Artifact, Precision, Target, read_artifact
from service.inference.encoder import CpuEncoder, open_cpu_encoder
from service.inference.probes import check_probes
from service.inference.types import Encoding, Float32Array, Unit, Vectors

Run = Callable[[Path, Sequence[Encoding]], dict[str, Float32Array]]
Draw = Callable[..., list[Encoding]]
LENGTHS = (5, 40, 1, 2, 17, 40, 3)

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gelu_new": {"hidden_act": "gelu_new"},
    "relu": {"hidden_act": "relu"},
    "one type": {"type_vocab_size": 1},
    "one head": {"num_attention_heads": 1},
    "one layer": {"num_hidden_layers": 1},
    "wide": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 32},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_output_is_near_transformers(
    tmp_path: Path, make_checkpoint: Callable[..., Path], run_graph: Run, run_torch: Run, draw: Draw, variant: Any
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **variant)
    artifact = export(str(checkpoint), tmp_path / "artifact", precision="int8").folder
    texts = draw(LENGTHS, type_vocab_size=variant.get("type_vocab_size", 3))
    actual, expected = run_graph(artifact, texts), run_torch(checkpoint, texts)
    assert actual.keys() == expected.keys()
    for name, rows in expected.items():
        cosines = _cosines(actual[name], rows)
        assert cosines.min() > 0.98, name
        assert cosines.mean() > 0.995, name


def test_the_default_model_is_near_its_float32_form(
    minilm: Path, minilm_int8: Path, run_graph: Run, draw: Draw
) -> None:
    probes = [probe.encoding for probe in read_artifact(minilm).probes()]
    texts = [*probes, *draw([256, 12, 2, 100], vocab_size=30522, type_vocab_size=2)]
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


def test_rows_of_zeros(tmp_path: Path, make_checkpoint: Callable[..., Path], run_graph: Run, draw: Draw) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    model = BertModel.from_pretrained(checkpoint)
    for layer in model.encoder.layer:
        layer.attention.self.value.weight.data.zero_()  # so that the context is zero throughout
        layer.attention.self.value.bias.data.zero_()
    model.save_pretrained(checkpoint)
    artifact = export(str(checkpoint), tmp_path / "artifact", precision="int8").folder
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
        write_graphs(network, weights, folder, target, precision)
        _cut_weights(folder)

    monkeypatch.setattr(export_module, "write_graphs", write)
    refused(tiny_checkpoint, "hidden_state_1 of the graph is off its own arithmetic by ", "int8")


@pytest.mark.parametrize("name", ["tiny_int8", "minilm_int8"])
def test_the_probes_agree_on_this_machine(request: pytest.FixtureRequest, name: str) -> None:
    artifact = read_artifact(request.getfixturevalue(name))
    check_probes(artifact, open_cpu_encoder(artifact))


def test_exact_kernels_take_over_where_the_fast_ones_are_wrong(
    minilm_int8: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a processor fails by itself; any other is made to."""
    artifact = read_artifact(minilm_int8)

    def fail(*_: object) -> None:
        raise ArtifactError("this machine's vectors differ from the probes")

    monkeypatch.setattr(encoder_module, "check_probes", fail)
    encoder = open_cpu_encoder(artifact)
    assert "without VNNI the fast ones add wrongly: this machine's vectors" in caplog.text
    key, value = EXACT_PRODUCTS
    assert encoder._session.get_session_options().get_session_config_entry(key) == value
    check_probes(artifact, encoder)


def test_weights_that_saturate_are_found_by_the_probes(tiny_int8: Path) -> None:
    manifest = read_artifact(tiny_int8).manifest
    before = (tiny_int8 / WEIGHTS).read_bytes()
    try:
        _cut_weights(tiny_int8)
        artifact = Artifact(tiny_int8, manifest)
        with pytest.raises(ArtifactError, match="a driver, library or processor computes wrongly"):
            check_probes(artifact, CpuEncoder(artifact, exact=True))
    finally:
        (tiny_int8 / WEIGHTS).write_bytes(before)


@pytest.mark.parametrize(("name", "checkpoint"), [("tiny_int8", "tiny_checkpoint"), ("minilm_int8", None)])
def test_sums_that_saturate_are_found_by_the_probes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, checkpoint: str | None
) -> None:
    """On x86 without VNNI, two products of u8 and s8 are added in 16 bits, which do not hold every sum."""
    artifact = read_artifact(request.getfixturevalue(name))
    source = str(request.getfixturevalue(checkpoint)) if checkpoint else DEFAULT_ID
    model = export_module._read(find_checkpoint(source))
    first = replace(model.network, layers=1)

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        states = reference.forward(first, model.weights, [unit.encoding for unit in units], "int8")
        return [[text.hidden[1].mean(axis=0).astype(np.float32)] for text in states]

    check_probes(artifact, encode)
    monkeypatch.setattr(reference, "_int8_linear", _saturating_linear)
    with pytest.raises(ArtifactError, match="a driver, library or processor computes wrongly"):
        check_probes(artifact, encode)


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
