"""The forward pass in NumPy against transformers in double precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel

from berth.types import Encoding
from model_export.checkpoint import find_checkpoint
from model_export.families.bert import BERT
from model_export.reference import States, forward
from model_export.tensors import open_tensors
from model_export.weights import match_weights

Draw = Callable[..., list[Encoding]]


def _forward(folder: Path, encodings: list[Encoding]) -> list[States]:
    checkpoint = find_checkpoint(str(folder))
    network = BERT.network(checkpoint.object("config.json"))
    return forward(network, match_weights(network, BERT, open_tensors(checkpoint)), encodings)


@pytest.mark.parametrize("config", [{}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.1}])
def test_it_agrees_with_transformers_in_double_precision(
    tmp_path: Path, make_checkpoint: Callable[..., Path], draw: Draw, config: dict[str, Any]
) -> None:
    folder = make_checkpoint(tmp_path, **config)
    model = BertModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    texts = draw([1, 2, 40, 11])
    for text, states in zip(texts, _forward(folder, texts), strict=True):
        ids, types = (torch.tensor(row[None].astype(np.int64)) for row in (text.ids, text.type_ids))
        with torch.no_grad():
            expected = model(input_ids=ids, token_type_ids=types, output_hidden_states=True)
        assert len(states.hidden) == len(expected.hidden_states)
        for ours, theirs in zip(states.hidden, expected.hidden_states, strict=True):
            np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=0, atol=1e-12)
        assert states.pooler is not None
        np.testing.assert_allclose(states.pooler, expected.pooler_output[0].numpy(), rtol=0, atol=1e-12)
