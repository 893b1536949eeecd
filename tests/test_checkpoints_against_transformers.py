"""The checkpoints that tests are made of are BERT's to transformers too."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel


@pytest.mark.parametrize("config", [{}, {"hidden_act": "relu", "num_attention_heads": 1, "num_hidden_layers": 1}])
def test_transformers_reads_every_tensor_and_no_other(
    tmp_path: Path, make_checkpoint: Callable[..., Path], config: dict[str, object]
) -> None:
    folder = make_checkpoint(tmp_path, **config)
    model, info = BertModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert all(getattr(model.config, name) == value for name, value in config.items())
    for name, parameter in model.named_parameters():
        centre = 1 if name.endswith("LayerNorm.weight") else 0
        assert 0.05 < (parameter.detach() - centre).std() < 0.35, f"{name} is as transformers made it up"


def test_config_is_as_transformers_writes_it(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(tmp_path / "ours")
    BertConfig.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    ours, theirs = (json.loads((each / "config.json").read_text()) for each in (folder, tmp_path / "theirs"))
    del ours["transformers_version"], theirs["transformers_version"]
    assert ours == theirs
