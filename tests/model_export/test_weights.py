"""Every tensor is found by its name and has its shape, or the export stops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from model_export.checkpoint import find_checkpoint
from model_export.families.bert import BERT
from model_export.tensors import open_tensors
from model_export.weights import Weights, match_weights

Stored = dict[str, NDArray[Any]]
Refused = Callable[..., None]
QUERY = "encoder.layer.1.attention.self.query"


def _change(folder: Path, change: Callable[[Stored], object]) -> None:
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")


def _rename(folder: Path, new: Callable[[str], str]) -> None:
    stored = load_file(folder / "model.safetensors")
    save_file({new(name): tensor for name, tensor in stored.items()}, folder / "model.safetensors")


def _match(folder: Path) -> Weights:
    checkpoint = find_checkpoint(str(folder))
    network = BERT.network(checkpoint.object("config.json"))
    return match_weights(network, BERT, open_tensors(checkpoint))


def _old_name(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("new", [lambda name: f"bert.{name}", _old_name, lambda name: f"bert.{_old_name(name)}"])
def test_names_of_other_times_and_places(tiny_checkpoint: Path, tiny_copy: Path, new: Callable[[str], str]) -> None:
    _rename(tiny_copy, new)
    expected, actual = _match(tiny_checkpoint), _match(tiny_copy)
    assert expected.sources.keys() == actual.sources.keys()
    assert actual.has_pooler
    for name in expected.sources:
        np.testing.assert_array_equal(actual[name], expected[name])


def test_heads_are_left_out_and_buffers_ignored(tiny_copy: Path) -> None:
    heads = {"cls.seq_relationship.weight", "classifier.bias", "qa_outputs.weight"}
    _change(tiny_copy, lambda stored: stored.update({name: np.zeros(2, np.float32) for name in heads}))
    _change(tiny_copy, lambda stored: stored.update({"embeddings.position_ids": np.arange(40)}))
    assert set(_match(tiny_copy).left_out) == heads


def test_a_missing_tensor_is_named(tiny_copy: Path, refused: Refused) -> None:
    _change(tiny_copy, lambda stored: stored.pop(f"{QUERY}.weight"))
    refused(tiny_copy, f"tensor {QUERY}.weight [60, 60] is missing from the checkpoint")


def test_half_a_pooler_is_not_enough(tiny_copy: Path, refused: Refused) -> None:
    _change(tiny_copy, lambda stored: stored.pop("pooler.dense.bias"))
    refused(tiny_copy, "tensor pooler.dense.bias [60] is missing from the checkpoint")


@pytest.mark.parametrize("name", ["encoder.layer.3.output.dense.bias", "adapter.weight", "embeddings.extra"])
def test_an_unknown_tensor_is_named(tiny_copy: Path, refused: Refused, name: str) -> None:
    _change(tiny_copy, lambda stored: stored.update({name: np.zeros((2, 3), np.float32)}))
    refused(tiny_copy, f"tensor {name} [2, 3] is not part of a bert encoder")


@pytest.mark.parametrize("name", [f"{QUERY}.weight", "embeddings.word_embeddings.weight", "pooler.dense.weight"])
def test_a_misshapen_tensor_is_named(tiny_copy: Path, refused: Refused, name: str) -> None:
    _change(tiny_copy, lambda stored: stored.update({name: np.zeros((60, 59), np.float32)}))
    refused(tiny_copy, f"tensor {name} is [60, 59], but config.json asks for [")


def test_a_tensor_of_two_names_is_refused(tiny_copy: Path, refused: Refused) -> None:
    _change(tiny_copy, lambda stored: stored.update({f"bert.{QUERY}.bias": np.zeros(60, np.float32)}))
    refused(tiny_copy, f"{QUERY}.bias is in the checkpoint twice, as ")


def test_a_tensor_of_integers_is_refused(tiny_copy: Path, refused: Refused) -> None:
    _change(tiny_copy, lambda stored: stored.update({f"{QUERY}.bias": np.zeros(60, np.int64)}))
    refused(tiny_copy, f"tensor {QUERY}.bias is I64")


def test_a_weight_that_is_no_number_is_refused(tiny_copy: Path, refused: Refused) -> None:
    _change(tiny_copy, lambda stored: stored[f"{QUERY}.bias"].fill(np.nan))
    refused(tiny_copy, f"tensor {QUERY}.bias holds a number that is not finite")
