"""A family whose pieces exist is added by one file: nothing else is touched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import model_export
from berth.artifact import read_artifact
from berth.encoder import Encoder
from berth.features import Feature
from tests.model_export.families.plain import read_stored, write_plain, write_stored

ROOT = Path(model_export.__file__).parent
MODULE = '''\
"""Shuffled BERT: the queries, keys and values of a layer in one tensor, turned by their places."""

from model_export.families.config import Config, read
from model_export.families.family import Family, Part
from model_export.network import Network, Rotary

WHOLE = "blocks.#.qkv"

SHUFFLED = Family(
    name="shuffled",
    network=lambda config: Network(
        **read(Config, config).sizes(), type_vocab_size=1, learned_positions=False, rotary=Rotary(20000.0)
    ),
    spellings=(
        {
            "embeddings.word": "words",
            "embeddings.type": "kinds",
            "embeddings.norm": "ln",
            "layer.#.query": Part(WHOLE, 2, 3),
            "layer.#.key": Part(WHOLE, 0, 3),
            "layer.#.value": Part(WHOLE, 1, 3),
            "layer.#.attention_output": "blocks.#.out",
            "layer.#.attention_norm": "blocks.#.ln1",
            "layer.#.inner": "blocks.#.up",
            "layer.#.outer": "blocks.#.down",
            "layer.#.output_norm": "blocks.#.ln2",
            "pooler": "pool",
        },
    ),
    prefixes=("shuffled.",),
)
'''
NAMES = {
    "embeddings.word_embeddings": "words",
    "embeddings.token_type_embeddings": "kinds",
    "embeddings.LayerNorm": "ln",
    "self_attn.o_proj": "out",
    "post_attention_layernorm": "ln1",
    "post_mlp_layernorm": "ln2",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
    "layers.": "blocks.",
    "pooler.dense": "pool",
}
"""Jina v3's names of the tensors, whose network it is, to its own."""


def test_a_new_family_is_exported_by_adding_its_file(tmp_path: Path) -> None:
    known = write_plain(tmp_path / "known", "jina_embeddings_v3", rope_parameters={"rope_theta": 20000.0})
    _respell(known, tmp_path / "new")
    shutil.copytree(ROOT, tmp_path / "code" / "model_export", ignore=shutil.ignore_patterns("__pycache__"))
    refused = _export(tmp_path, "new")
    assert refused.returncode == 1
    assert "model_type 'shuffled' is not supported; supported: albert, " in refused.stderr
    (tmp_path / "code" / "model_export" / "families" / "shuffled.py").write_text(MODULE)
    for name in ("known", "new"):
        export = _export(tmp_path, name)
        assert export.returncode == 0, export.stderr
    assert read_artifact(tmp_path / "artifacts" / "new").manifest.family == "shuffled"
    features = [Feature(pooling="none", layers=[layer]) for layer in range(4)] + [Feature(pooling="pooler")]
    vectors = []
    for name in ("known", "new"):
        with Encoder(tmp_path / "artifacts" / name, threads=1) as encoder:
            vectors.append(encoder.features(["hello world", ("a ship", "of the text"), "in " * 200], features))
    for ours, theirs in zip(*vectors, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def _respell(known: Path, folder: Path) -> None:
    """Write the same network as another family spells it: other names, and keys, values and queries in one tensor."""
    shutil.copytree(known, folder)
    config = json.loads((known / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "shuffled"}))
    stored = read_stored(known)
    for layer, kind in ((layer, kind) for layer in range(3) for kind in ("weight", "bias")):
        parts = [stored.pop(f"layers.{layer}.self_attn.{part}_proj.{kind}") for part in "kvq"]
        stored[f"layers.{layer}.qkv.{kind}"] = np.concatenate(parts)
    for theirs, ours in NAMES.items():
        stored = {name.replace(theirs, ours): tensor for name, tensor in stored.items()}
    write_stored(folder, {f"shuffled.{name}": tensor for name, tensor in stored.items()})


def _export(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Export by the copy of the code; `berth` is the one that is tested."""
    return subprocess.run(
        [sys.executable, "-m", "model_export", str(folder / name), str(folder / "artifacts" / name)],
        cwd=folder / "code",
        env=os.environ | {"PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
