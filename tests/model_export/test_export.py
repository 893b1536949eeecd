"""A whole export: what the manifest says, and what the golden vectors hold."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from berth import __version__
from berth.artifact import GOLDEN_VECTORS, GRAPH, TOKENIZER, WEIGHTS, Precision, Target, WeightBits, read_artifact
from berth.models import DEFAULT_MODEL
from berth.types import Encoding, Float32Array, Metric, Pooling
from model_export import export as export_module
from model_export.checkpoint import DEFAULT_SHA256
from model_export.errors import ExportError
from model_export.export import export
from model_export.samples import GOLDEN_TEXTS

Run = Callable[[Path, Sequence[Encoding]], dict[str, Float32Array]]


def test_the_manifest_of_the_default_model(minilm: Path) -> None:
    manifest = read_artifact(minilm).manifest
    assert manifest.berth_version == __version__
    assert manifest.source.id == DEFAULT_MODEL
    assert manifest.source.files["model.safetensors"] == DEFAULT_SHA256
    assert {"config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"} <= manifest.source.files.keys()
    assert (manifest.family, manifest.target, manifest.precision) == ("bert", "cpu", "fp32")
    assert (manifest.hidden_size, manifest.layers, manifest.heads) == (384, 6, 12)
    assert (manifest.max_tokens, manifest.vocab_size, manifest.type_vocab_size) == (256, 30522, 2)
    assert (manifest.pooling, manifest.normalize, manifest.has_pooler) == (Pooling.MEAN, True, True)
    assert (manifest.prompts, manifest.default_prompt_name) == ({}, None)
    assert manifest.similarity is Metric.COSINE
    assert manifest.files.keys() == {GRAPH, WEIGHTS, TOKENIZER, GOLDEN_VECTORS}
    assert 0 < manifest.verification["max_relative_difference"] < 1e-5
    assert manifest.verification["min_cosine"] > 1 - 1e-9


@pytest.mark.parametrize(("name", "bits"), [("minilm_int8", 8), ("minilm_int8_w7", 7)])
def test_the_manifest_of_the_default_model_in_int8(
    request: pytest.FixtureRequest, minilm: Path, name: str, bits: int
) -> None:
    folder = request.getfixturevalue(name)
    manifest = read_artifact(folder).manifest
    assert (manifest.target, manifest.precision, manifest.probe_layer) == ("cpu", "int8", 1)
    assert manifest.weight_bits == bits
    assert manifest.verification["min_cosine"] > (0.97 if bits == 8 else 0.95)
    assert manifest.verification["max_relative_difference"] < 0.4
    assert manifest.verification["median_rounded_difference"] < 1e-6
    assert (folder / WEIGHTS).stat().st_size < (minilm / WEIGHTS).stat().st_size - 30e6


@pytest.mark.parametrize("bits", [7, 8])
def test_the_processor_chooses_the_bits_of_int8s_weights(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: WeightBits
) -> None:
    monkeypatch.setattr(export_module, "weight_bits_here", lambda: (bits, "so it is"))
    summary = export(str(tiny_checkpoint), tmp_path / "out", precision="int8")
    assert (summary.manifest.weight_bits, summary.bits_reason) == (bits, "so it is")


def test_bits_that_were_asked_for_are_written_on_any_processor(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "weight_bits_here", None)
    summary = export(str(tiny_checkpoint), tmp_path / "out", precision="int8", int8_weights=7)
    assert (summary.manifest.weight_bits, summary.bits_reason) == (7, None)


def test_an_artifact_of_another_precision_has_no_bits(tiny_artifact: Path) -> None:
    assert read_artifact(tiny_artifact).manifest.weight_bits is None


@pytest.mark.parametrize(
    ("target", "precision", "given"), [("cpu", None, "fp32"), ("cpu", "fp32", "fp32"), ("cuda", None, "fp16")]
)
def test_bits_are_for_int8_alone(
    tiny_checkpoint: Path, refused: Callable[..., None], target: Target, precision: Precision | None, given: str
) -> None:
    message = f"--int8-weights 7 is for precision int8, and the precision is {given}"
    refused(tiny_checkpoint, message, precision, target, 7)


@pytest.mark.parametrize("artifact", ["minilm", "tiny_artifact"])
def test_the_golden_vectors_are_what_the_graph_gives(
    request: pytest.FixtureRequest, run_graph: Run, artifact: str
) -> None:
    folder = request.getfixturevalue(artifact)
    manifest, golden_vectors = read_artifact(folder).manifest, read_artifact(folder).golden_vectors()
    assert len(golden_vectors) == len(GOLDEN_TEXTS)
    last = f"hidden_state_{manifest.layers}"
    for each in golden_vectors:
        mean = run_graph(folder, [each.encoding])[last].mean(axis=0)
        off = np.linalg.norm(mean - each.vector) / np.linalg.norm(each.vector)
        assert off < manifest.probe_tolerance / 10


def test_prompts_and_metric_of_the_checkpoint_are_in_the_manifest(tiny_copy: Path, tmp_path: Path) -> None:
    config = {
        "prompts": {"query": "find: ", "document": ""},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
    }
    (tiny_copy / "config_sentence_transformers.json").write_text(json.dumps(config))
    export(str(tiny_copy), tmp_path / "out")
    manifest = read_artifact(tmp_path / "out").manifest
    assert (manifest.prompts, manifest.default_prompt_name) == ({"query": "find: ", "document": ""}, "query")
    assert (manifest.similarity, manifest.normalize) == (Metric.DOT, False)


def test_the_limit_is_at_most_the_positions(tiny_copy: Path, tmp_path: Path) -> None:
    (tiny_copy / "sentence_bert_config.json").write_text('{"max_seq_length": 512}')
    assert export(str(tiny_copy), tmp_path / "out").manifest.max_tokens == 40


def test_a_limit_shorter_than_the_golden_texts(tiny_copy: Path, tmp_path: Path) -> None:
    (tiny_copy / "sentence_bert_config.json").write_text('{"max_seq_length": 3}')
    assert export(str(tiny_copy), tmp_path / "out").manifest.max_tokens == 3
    assert max(len(each.encoding) for each in read_artifact(tmp_path / "out").golden_vectors()) == 3


def test_an_encoder_in_a_folder_of_its_own(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    make_checkpoint(tmp_path / "model" / "0_BERT")
    kinds = ("Transformer", "0_BERT"), ("Pooling", "1_Pooling")
    modules: list[dict[str, Any]] = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "model" / "1_Pooling").mkdir()
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    manifest = export(str(tmp_path / "model"), tmp_path / "out").manifest
    assert manifest.pooling is Pooling.CLS
    assert {"0_BERT/config.json", "0_BERT/model.safetensors", "0_BERT/vocab.txt"} <= manifest.source.files.keys()


def test_an_export_of_the_same_is_the_same(tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    again = export(str(tiny_checkpoint), tmp_path / "again").manifest
    assert again == read_artifact(tiny_artifact).manifest


@pytest.mark.parametrize(("target", "precision"), [("cuda", "int8"), ("cpu", "fp16")])
def test_what_is_not_built_yet_is_said(tmp_path: Path, tiny_checkpoint: Path, target: Any, precision: Any) -> None:
    with pytest.raises(ExportError, match=f"target {target} with precision {precision} is not built yet"):
        export(str(tiny_checkpoint), tmp_path / "out", target, precision)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_itself_is_never_overwritten(tiny_copy: Path) -> None:
    before = {path: path.read_bytes() for path in tiny_copy.iterdir()}
    with pytest.raises(ExportError, match="exists and is not an artifact"):
        export(str(tiny_copy), tiny_copy)
    assert {path: path.read_bytes() for path in tiny_copy.iterdir()} == before


def test_two_exports_at_once_both_end_well(tmp_path: Path, tiny_checkpoint: Path) -> None:
    out = tmp_path / "artifacts" / "tiny"
    command = [sys.executable, "-m", "model_export", str(tiny_checkpoint), str(out)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    read_artifact(out)
    assert list(out.parent.iterdir()) == [out]
