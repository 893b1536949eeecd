"""The CUDA graph, computed on the CPU, against transformers: every output, of every shape of BERT that is supported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from transformers import BertForMaskedLM

from berth.artifact import GRAPH
from berth.backends.cuda.graph import INPUTS, POOLED, POOLED_MAX
from berth.models import DEFAULT_MODEL
from berth.types import Encoding, Float32Array
from model_export.checkpoint import find_checkpoint
from model_export.export import export

Run = Callable[[Path, Sequence[Encoding]], dict[str, Float32Array]]
Draw = Callable[..., list[Encoding]]
LENGTHS = (5, 40, 1, 2, 17, 40, 3)

VARIANTS: dict[str, dict[str, Any]] = {
    "heads of 12, filled up to 16": {},
    "gelu_new": {"hidden_act": "gelu_new"},
    "relu": {"hidden_act": "relu"},
    "large epsilon": {"layer_norm_eps": 0.1},
    "one type": {"type_vocab_size": 1},
    "one head of 60": {"num_attention_heads": 1},
    "heads of 8": {"hidden_size": 40},
    "wide heads": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 32},
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_output_agrees_with_transformers(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    compute_graph: Run,
    run_torch: Run,
    draw: Draw,
    variant: Any,
    precision: Any,
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **variant)
    artifact = export(str(checkpoint), tmp_path / "artifact", "cuda", precision).folder
    texts = draw(LENGTHS, type_vocab_size=variant.get("type_vocab_size", 3))
    _agree(compute_graph(artifact, texts), _with_pooled(run_torch(checkpoint, texts)), precision)


def test_a_model_without_pooler_has_neither_its_output_nor_its_input(
    tmp_path: Path, make_torch_checkpoint: Callable[..., Path], compute_graph: Run, run_torch: Run, draw: Draw
) -> None:
    checkpoint = make_torch_checkpoint(tmp_path / "checkpoint", BertForMaskedLM)
    artifact = export(str(checkpoint), tmp_path / "artifact", "cuda").folder
    expected = _with_pooled(run_torch(checkpoint, draw(LENGTHS)))
    del expected["pooler_output"]  # which transformers made up
    _agree(compute_graph(artifact, draw(LENGTHS)), expected, "fp16")
    graph = onnx.load(artifact / GRAPH, load_external_data=False).graph
    assert [value.name for value in graph.input] == [name for name in INPUTS if name != "first_tokens"]


def test_the_default_model_agrees_with_transformers(
    tmp_path: Path, compute_graph: Run, run_torch: Run, draw: Draw
) -> None:
    artifact = export(DEFAULT_MODEL, tmp_path / "artifact", "cuda").folder
    texts = draw([130, 12, 1, 100], vocab_size=30522, type_vocab_size=2)
    expected = run_torch(find_checkpoint(DEFAULT_MODEL).folder, texts)
    _agree(compute_graph(artifact, texts), _with_pooled(expected, [130, 12, 1, 100]), "fp16")


def _with_pooled(expected: dict[str, Float32Array], lengths: Sequence[int] = LENGTHS) -> dict[str, Float32Array]:
    last = max((name for name in expected if name.startswith("hidden_state_")), key=lambda name: int(name[13:]))
    texts = np.split(expected[last], np.cumsum(lengths)[:-1])
    return expected | {
        POOLED: np.stack([rows.mean(axis=0) for rows in texts]),
        POOLED_MAX: np.stack([rows.max(axis=0) for rows in texts]),
    }


def _agree(actual: dict[str, Float32Array], expected: dict[str, Float32Array], precision: str) -> None:
    assert actual.keys() == expected.keys()
    for name, rows in expected.items():
        if precision == "fp32":
            np.testing.assert_allclose(actual[name], rows, rtol=0, atol=3e-5, err_msg=name)
        lengths = np.linalg.norm(actual[name], axis=1) * np.linalg.norm(rows, axis=1)
        assert ((actual[name] * rows).sum(axis=1) / lengths).min() >= 0.9999, name
