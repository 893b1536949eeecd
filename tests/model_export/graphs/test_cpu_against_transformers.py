"""The graph for the CPU against transformers: every layer and the pooler, of every shape of BERT that is supported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM, BertForSequenceClassification, BertModel

from berth.models import DEFAULT_MODEL
from berth.types import Encoding, Float32Array
from model_export.checkpoint import find_checkpoint
from model_export.export import export

Run = Callable[[Path, Sequence[Encoding]], dict[str, Float32Array]]
Draw = Callable[..., list[Encoding]]
LENGTHS = (5, 40, 1, 2, 17, 40, 3)

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gelu_new": {"hidden_act": "gelu_new"},
    "relu": {"hidden_act": "relu"},
    "large epsilon": {"layer_norm_eps": 0.1},
    "one type": {"type_vocab_size": 1},
    "one head": {"num_attention_heads": 1},
    "one layer": {"num_hidden_layers": 1},
    "wide": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 32},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_output_agrees_with_transformers(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    run_graph: Run,
    run_torch: Run,
    draw: Draw,
    variant: Any,
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **variant)
    artifact = export(str(checkpoint), tmp_path / "artifact").folder
    texts = draw(LENGTHS, type_vocab_size=variant.get("type_vocab_size", 3))
    _agree(run_graph(artifact, texts), run_torch(checkpoint, texts))


@pytest.mark.parametrize(
    ("model_class", "dtype"),
    [
        (BertModel, torch.float32),
        (BertModel, torch.float16),
        (BertModel, torch.bfloat16),
        (BertForSequenceClassification, torch.float32),
    ],
)
def test_every_output_of_what_transformers_wrote_agrees(
    tmp_path: Path,
    make_torch_checkpoint: Callable[..., Path],
    run_graph: Run,
    run_torch: Run,
    draw: Draw,
    model_class: Any,
    dtype: torch.dtype,
) -> None:
    checkpoint = make_torch_checkpoint(tmp_path / "checkpoint", model_class, dtype)
    artifact = export(str(checkpoint), tmp_path / "artifact").folder
    _agree(run_graph(artifact, draw(LENGTHS)), run_torch(checkpoint, draw(LENGTHS)))


def test_the_default_model_agrees_with_transformers(minilm: Path, run_graph: Run, run_torch: Run, draw: Draw) -> None:
    texts = draw([256, 12, 1, 100], vocab_size=30522, type_vocab_size=2)
    _agree(run_graph(minilm, texts), run_torch(find_checkpoint(DEFAULT_MODEL).folder, texts))


def test_a_model_without_pooler_has_no_pooler_output(
    tmp_path: Path, make_torch_checkpoint: Callable[..., Path], run_graph: Run, run_torch: Run, draw: Draw
) -> None:
    checkpoint = make_torch_checkpoint(tmp_path / "checkpoint", BertForMaskedLM)
    summary = export(str(checkpoint), tmp_path / "artifact")
    outputs = run_graph(summary.folder, draw(LENGTHS))
    assert not summary.manifest.has_pooler
    assert summary.left_out
    assert all(name.startswith("cls.") for name in summary.left_out)
    expected = run_torch(checkpoint, draw(LENGTHS))
    del expected["pooler_output"]  # which transformers made up
    _agree(outputs, expected)


def _agree(actual: dict[str, Float32Array], expected: dict[str, Float32Array]) -> None:
    assert actual.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_allclose(actual[name], rows, rtol=0, atol=1e-5, err_msg=name)
