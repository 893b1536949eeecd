"""The default model's parts, loaded once, and units to queue."""

import json
import shutil
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from service.inference.artifact import MANIFEST, Artifact, read_artifact, sha256
from service.inference.encoder import CpuEncoder
from service.inference.tokenizer import Tokenizer
from service.inference.types import Encoding, Unit

MakeUnits = Callable[[Iterable[int]], list[Unit]]
Amend = Callable[..., None]


@pytest.fixture(scope="session")
def artifact(minilm: Path) -> Artifact:
    """Give the default model's artifact."""
    return read_artifact(minilm)


@pytest.fixture(scope="session")
def tokenizer(artifact: Artifact) -> Tokenizer:
    """Give the default model's tokenizer."""
    manifest = artifact.manifest
    return Tokenizer(
        artifact.tokenizer,
        max_tokens=manifest.max_tokens,
        vocab_size=manifest.vocab_size,
        type_vocab_size=manifest.type_vocab_size,
    )


@pytest.fixture(scope="session")
def encoder(artifact: Artifact) -> CpuEncoder:
    """Give the default model, loaded."""
    return CpuEncoder(artifact)


@pytest.fixture(scope="session")
def make_units() -> MakeUnits:
    """Give a function that makes a unit of each length, like no other, without features; its first id is its number."""
    made = count()

    def make(lengths: Iterable[int]) -> list[Unit]:
        units = []
        for number, length in enumerate(lengths):
            ids = np.zeros(length, dtype=np.int32)
            ids[0] = number
            units.append(Unit(Encoding(ids, np.full_like(ids, next(made))), ()))
        return units

    return make


@pytest.fixture
def tiny_copy(tiny_artifact: Path, tmp_path: Path) -> Path:
    """Give a copy of the tiny artifact that a test may damage."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "artifact"))


@pytest.fixture
def amend() -> Amend:
    """Give a function that changes fields of an artifact's manifest; hashes are brought up to date first."""

    def change(folder: Path, **fields: object) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
        (folder / MANIFEST).write_text(json.dumps(manifest | fields))

    return change
