"""The artifact's tokenizer against transformers', from either file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from berth.models import DEFAULT_MODEL
from model_export.checkpoint import find_checkpoint
from model_export.families.bert import BERT
from model_export.tokenizer import read_tokenizer

TEXTS = [
    "Hello, World! naïve Café Éé",
    "自然语言 処理 한국어 🙂👩‍👩‍👧",
    "tabs\tand\u2028lines\nand\x00controls\x07",
    "[SEP] [MASK] [CLS]",
    "a [unused5] b[unused5]c [UNUSED5] [unused6]",
    "supercalifragilisticexpialidocious" * 5,
    "",
]
CONFIGS: list[dict[str, Any] | None] = [
    None,
    {},
    {"do_lower_case": True},
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"additional_special_tokens": ["[unused5]", "[unused6]"]},
    {"extra_special_tokens": ["[unused5]"]},
    {"extra_special_tokens": {"image_token": "[unused6]"}},
    {"additional_special_tokens": [{"content": "[unused5]", "lstrip": True, "rstrip": True, "__type": "AddedToken"}]},
    {"additional_special_tokens": ["[unused5]"], "extra_special_tokens": ["[unused6]"]},
    {"additional_special_tokens": ["[unused5]"], "extra_special_tokens": {"image_token": "[unused6]"}},
    {"added_tokens_decoder": {"6": {"content": "[unused5]", "special": True, "normalized": False}}},
    {"eos_token": "[unused5]"},
    {"tokenizer_class": None, "truncation_side": "right"},
    {"cls_token": {"content": "[unused1]", "__type": "AddedToken"}, "sep_token": "[unused2]"},
]


@pytest.mark.parametrize("config", CONFIGS)
def test_from_a_vocabulary(tmp_path: Path, config: dict[str, Any] | None) -> None:
    _agrees(tmp_path, config, "vocab.txt")


@pytest.mark.parametrize("config", CONFIGS[:-1])
def test_from_tokenizer_json(tmp_path: Path, config: dict[str, Any] | None) -> None:
    _agrees(tmp_path, config, "tokenizer.json", "vocab.txt")


def _agrees(folder: Path, config: dict[str, Any] | None, *files: str) -> None:
    """Read some of the default model's files with a tokenizer_config.json, here and in transformers."""
    for name in ("config.json", *files):
        shutil.copy(find_checkpoint(DEFAULT_MODEL).folder / name, folder)
    if config is not None:
        config = {"tokenizer_class": "BertTokenizer"} | config
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    checkpoint = find_checkpoint(str(folder))
    network = BERT.network(checkpoint.object("config.json"))
    ours, theirs = read_tokenizer(checkpoint, network, False).tokenizer, AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    pair, expected = ours.encode("first", "second"), theirs("first", "second")
    assert (pair.ids, pair.type_ids) == (expected["input_ids"], expected["token_type_ids"])
