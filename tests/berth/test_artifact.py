"""An artifact is served only if every file in it is what the manifest says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from berth.artifact import (
    GOLDEN_VECTORS,
    GRAPH,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    Artifact,
    GoldenVector,
    read_artifact,
    sha256,
    write_golden_vectors,
)
from berth.errors import ArtifactError
from berth.types import Encoding, Metric, Pooling

Amend = Callable[..., None]
FILES = [GRAPH, WEIGHTS, TOKENIZER, GOLDEN_VECTORS]


def refusal(folder: Path) -> str:
    """Read an artifact that must be refused; gives the one line that says why."""
    with pytest.raises(ArtifactError) as error:
        read_artifact(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_artifact_is_what_was_exported(tiny_artifact: Path) -> None:
    artifact = read_artifact(tiny_artifact)
    manifest = artifact.manifest
    assert (manifest.layers, manifest.hidden_size, manifest.heads, manifest.vocab_size) == (3, 60, 5, 97)
    assert sorted(manifest.files) == sorted(FILES)
    assert artifact.graph == tiny_artifact / GRAPH
    assert artifact.tokenizer == tiny_artifact / TOKENIZER


def test_default_model_is_described(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert (manifest.layers, manifest.hidden_size, manifest.vocab_size) == (6, 384, 30522)
    assert (manifest.max_tokens, manifest.pooling, manifest.normalize) == (256, Pooling.MEAN, True)
    assert (manifest.similarity, manifest.precision, manifest.target) == (Metric.COSINE, "fp32", "cpu")
    assert manifest.source.id == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("name", FILES)
def test_altered_file_is_refused(tiny_copy: Path, name: str) -> None:
    content = bytearray((tiny_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tiny_copy / name).write_bytes(content)
    assert name in refusal(tiny_copy)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_refused(tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).unlink()
    assert name in refusal(tiny_copy)


@pytest.mark.parametrize("name", FILES)
def test_file_that_no_hash_vouches_for_is_refused(tiny_copy: Path, amend: Amend, name: str) -> None:
    amend(tiny_copy, files={other: sha256(tiny_copy / other) for other in FILES if other != name})
    assert name in refusal(tiny_copy)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"format_version": 6}, "format_version"),
        ({"layers": "six"}, "layers"),
        ({"pooling": "sum"}, "pooling"),
        ({"projection": [{"kind": "dense", "inputs": 60, "outputs": 4, "activation": "Softmax"}]}, "activation"),
        ({"projection": [{"kind": "whiten"}]}, "projection"),
        ({"invented": 1}, "invented"),
    ],
)
def test_manifest_of_another_format_is_refused_with_the_field(
    tiny_copy: Path, amend: Amend, fields: dict[str, object], named: str
) -> None:
    amend(tiny_copy, **fields)
    assert named in refusal(tiny_copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_manifest_that_is_none_is_refused(tiny_copy: Path, content: bytes) -> None:
    (tiny_copy / MANIFEST).write_bytes(content)
    assert MANIFEST in refusal(tiny_copy)


def test_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert "is not an artifact" in refusal(tmp_path)
    assert "is not an artifact" in refusal(tmp_path / "nowhere")


def test_a_field_left_out_is_refused(tiny_copy: Path) -> None:
    manifest = json.loads((tiny_copy / MANIFEST).read_text())
    del manifest["max_tokens"]
    (tiny_copy / MANIFEST).write_text(json.dumps(manifest))
    assert "max_tokens" in refusal(tiny_copy)


def test_golden_vectors_come_back_as_they_were_written(artifact: Artifact, tiny_copy: Path) -> None:
    random = np.random.default_rng(0)
    written = [
        GoldenVector(
            Encoding(random.integers(97, size=size, dtype=np.int32), np.full(size, size % 3, dtype=np.int32)),
            random.normal(size=60).astype(np.float32),
        )
        for size in (3, 1, 8)
    ]
    write_golden_vectors(tiny_copy, written)
    read = Artifact(tiny_copy, artifact.manifest).golden_vectors()
    for before, after in zip(written, read, strict=True):
        np.testing.assert_array_equal(after.encoding.ids, before.encoding.ids)
        np.testing.assert_array_equal(after.encoding.type_ids, before.encoding.type_ids)
        np.testing.assert_array_equal(after.vector, before.vector)


def test_sha256_is_the_known_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
