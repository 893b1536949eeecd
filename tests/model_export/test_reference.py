"""The forward pass in NumPy: what it gives where a checkpoint has no pooler."""

from collections.abc import Callable
from pathlib import Path

from berth.types import Encoding
from model_export.checkpoint import find_checkpoint
from model_export.families.bert import BERT
from model_export.reference import forward
from model_export.tensors import open_tensors
from model_export.weights import match_weights


def test_without_a_pooler(
    tiny_copy: Path, change_weights: Callable[..., None], draw: Callable[..., list[Encoding]]
) -> None:
    change_weights(tiny_copy, lambda stored: [stored.pop(f"pooler.dense.{part}") for part in ("weight", "bias")])
    checkpoint = find_checkpoint(str(tiny_copy))
    network = BERT.network(checkpoint.object("config.json"))
    [states] = forward(network, match_weights(network, BERT, open_tensors(checkpoint)), draw([3]))
    assert states.pooler is None
    assert [rows.shape for rows in states.hidden] == [(3, 60)] * 4
