"""The weights of Dense modules: what is written of them, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from berth.artifact import PROJECTION, Dense, Normalize, read_artifact
from model_export.export import export

HIDDEN = 60
OLD = "sentence_transformers.models."
CONFIG = {"in_features": HIDDEN, "out_features": 4, "bias": True, "activation_function": "torch.nn.Tanh"}

Refused = Callable[..., None]


@pytest.fixture
def with_dense(tiny_copy: Path) -> Path:
    """Give the tiny checkpoint with a Normalize and a Dense behind its pooling."""
    names = ["Transformer", "Pooling", "Normalize", "Dense"]
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_x" if n else "", "type": OLD + name} for n, name in enumerate(names)
    ]
    (tiny_copy / "modules.json").write_text(json.dumps(modules))
    for folder, config in (("1_x", {"pooling_mode": "mean"}), ("3_x", CONFIG)):
        (tiny_copy / folder).mkdir()
        (tiny_copy / folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    tensors = {
        "linear.weight": random.normal(size=(4, HIDDEN)).astype(np.float32),
        "linear.bias": random.normal(size=4).astype(np.float32),
    }
    save_file(tensors, tiny_copy / "3_x" / "model.safetensors")
    return tiny_copy


def test_weights_come_into_the_artifact_and_back(with_dense: Path, tmp_path: Path) -> None:
    artifact = read_artifact(export(str(with_dense), tmp_path / "out").folder)
    layer = Dense(inputs=HIDDEN, outputs=4, activation="Tanh")
    assert artifact.manifest.projection == (Normalize(), layer)
    assert (artifact.manifest.projected, artifact.manifest.dense_layers) == (4, {1: layer})
    assert PROJECTION in artifact.manifest.files
    assert {"3_x/config.json", "3_x/model.safetensors"} <= artifact.manifest.source.files.keys()
    tensors, weights = load_file(with_dense / "3_x" / "model.safetensors"), artifact.projection()[1]
    np.testing.assert_array_equal(weights.weight, tensors["linear.weight"])
    np.testing.assert_array_equal(weights.bias, tensors["linear.bias"])


def change(checkpoint: Path, **tensors: Any) -> None:
    path = checkpoint / "3_x" / "model.safetensors"
    stored = load_file(path) | {f"linear.{name}": value for name, value in tensors.items()}
    save_file({name: value for name, value in stored.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": None}, "3_x: tensor linear.weight is missing"),
        ({"bias": None}, "3_x: tensor linear.bias is missing"),
        (
            {"other": np.zeros(1, np.float32)},
            "3_x: tensor linear.other is not one of a Dense as its config.json has it",
        ),
        ({"weight": np.zeros((HIDDEN, 4), np.float32)}, "3_x: tensor linear.weight is [60, 4], expected [4, 60]"),
        ({"bias": np.zeros(1, np.float32)}, "3_x: tensor linear.bias is [1], expected [4]"),
        ({"bias": np.array([0, np.nan, 0, 0], np.float32)}, "3_x: tensor linear.bias has numbers that are not finite"),
        ({"weight": np.full((4, HIDDEN), np.inf, np.float32)}, "tensor linear.weight has numbers that are not finite"),
        ({"bias": np.zeros(4, np.int64)}, "tensor linear.bias is I64"),
    ],
)
def test_other_weights_are_refused(with_dense: Path, refused: Refused, tensors: dict[str, Any], message: str) -> None:
    change(with_dense, **tensors)
    refused(with_dense, message)


def test_a_bias_that_the_config_has_not_is_refused(with_dense: Path, refused: Refused) -> None:
    (with_dense / "3_x" / "config.json").write_text(json.dumps(CONFIG | {"bias": False}))
    refused(with_dense, "3_x: tensor linear.bias is not one of a Dense as its config.json has it")


def test_a_pickle_alone_is_refused_with_the_way_out(with_dense: Path, refused: Refused) -> None:
    (with_dense / "3_x" / "model.safetensors").rename(with_dense / "3_x" / "pytorch_model.bin")
    refused(with_dense, "3_x: there is no model.safetensors, and a pickle (pytorch_model.bin) is never read; convert")


def test_vectors_of_another_width_are_refused(with_dense: Path, refused: Refused) -> None:
    (with_dense / "1_x" / "config.json").write_text('{"pooling_mode": ["cls", "mean"]}')
    refused(with_dense, "3_x/config.json: in_features 60, but vectors of 120 numbers come to it")
