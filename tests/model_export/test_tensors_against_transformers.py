"""Safetensors files as transformers and torch write them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertModel

from model_export.checkpoint import find_checkpoint
from model_export.tensors import Tensors, open_tensors


def test_shards_are_read_as_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    BertModel.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    whole, parts = (open_tensors(find_checkpoint(str(folder))) for folder in (tiny_checkpoint, tmp_path))
    assert sorted(whole.names()) == sorted(parts.names())
    for name in whole.names():
        np.testing.assert_array_equal(whole.read(name), parts.read(name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floats_are_widened(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1.5, -2.25, 3e-3]], dtype=dtype)
    save_file({"a": tensor}, tmp_path / "x.safetensors")
    tensors = Tensors([tmp_path / "x.safetensors"])
    assert tensors.shape("a") == (1, 3)
    assert tensors.read("a").dtype == np.float32
    np.testing.assert_array_equal(tensors.read("a"), tensor.float().numpy())
