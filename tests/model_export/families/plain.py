"""Checkpoints of every family without torch: tensors by the family's own table of names. For what is to be refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from model_export.families import family_of
from model_export.network import POOLER
from tests.berth.text.conftest import kind_of
from tests.model_export.families.checkpoints import SIZES, Stored, Variant
from tests.model_export.families.variants import FULL, SLIDING, VARIANTS

TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    **{f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")},
    "do_lower_case": True,
    "model_max_length": 90,
}
ROTARY = {"rope_type": "default", "rope_theta": 10_000.0}


def plain_config(name: str) -> dict[str, Any]:
    """Give the config.json of a variant, as near to transformers' as the export needs it."""
    variant = VARIANTS[name]
    given = {**SIZES, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 1, **variant.config}
    config = {field: value for field, value in given.items() if value is not None}
    config["model_type"] = variant.model_type
    if variant.model_type == "modernbert":
        config = {"layer_types": [FULL, SLIDING, SLIDING], "rope_parameters": {FULL: ROTARY, SLIDING: ROTARY}} | config
    else:
        config = {"rope_parameters": ROTARY} | config
    return _respelled(variant, config, {})[0]


def write_plain(folder: Path, name: str, **fields: Any) -> Path:
    """Write a variant's checkpoint, its tensors as config.json without further fields has them."""
    config = plain_config(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | fields))
    save_file(_tensors(config), folder / "model.safetensors")
    kind_of("bert").library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return folder


def read_stored(folder: Path) -> Stored:
    """Read a checkpoint's tensors."""
    stored: Stored = load_file(folder / "model.safetensors")
    return stored


def write_stored(folder: Path, stored: Stored) -> None:
    """Write a checkpoint's tensors."""
    save_file(stored, folder / "model.safetensors")


def _respelled(variant: Variant, config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    return (config, stored) if variant.respell is None else variant.respell(config, stored)


def _tensors(config: dict[str, Any]) -> Stored:
    family, random, stored = family_of(config), np.random.default_rng(7), Stored()
    spelling = family.spellings[-1 if family.name == "xlm-roberta" and family.code else 0]
    for ours, shape in family.network(config).shapes().items():
        source = family.source(spelling, ours)
        if source is None:
            assert ours in POOLER
            continue
        theirs, part = source
        rows = shape[0] * (part.count if part else 1)
        centre = 1 if len(shape) == 1 and ours.endswith("weight") else 0
        stored.setdefault(theirs, random.normal(centre, 0.2, (rows, *shape[1:])).astype(np.float32))
    return stored
