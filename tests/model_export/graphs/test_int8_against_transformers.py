"""The graph in int8 is near transformers, of every shape of BERT that is supported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from berth.artifact import WeightBits
from berth.types import Encoding, Float32Array
from model_export.export import export
from model_export.reference import Float64Array

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


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_output_is_near_transformers(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    run_graph: Run,
    run_torch: Run,
    draw: Draw,
    variant: Any,
    bits: WeightBits,
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **variant)
    artifact = export(str(checkpoint), tmp_path / "artifact", precision="int8", int8_weights=bits).folder
    texts = draw(LENGTHS, type_vocab_size=variant.get("type_vocab_size", 3))
    actual, expected = run_graph(artifact, texts), run_torch(checkpoint, texts)
    assert actual.keys() == expected.keys()
    for name, rows in expected.items():
        cosines = _cosines(actual[name], rows)
        assert cosines.min() > (0.98 if bits == 8 else 0.97), name
        assert cosines.mean() > (0.995 if bits == 8 else 0.99), name


def _cosines(actual: Any, expected: Any) -> Float64Array:
    cosines: Float64Array = (actual * expected).sum(axis=1) / (
        np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    )
    return cosines
