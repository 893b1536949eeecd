"""Safetensors files: one or many, of each float type, and broken ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import DTypeLike
from safetensors.numpy import save_file

from model_export.checkpoint import Checkpoint, find_checkpoint
from model_export.errors import ExportError
from model_export.tensors import INDEX, Tensors, open_tensors


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_floats_are_widened(tmp_path: Path, dtype: DTypeLike) -> None:
    array = np.array([[1.5, -2.25, 3e-3]], dtype)
    save_file({"a": array}, tmp_path / "x.safetensors")
    tensors = Tensors([tmp_path / "x.safetensors"])
    assert tensors.shape("a") == (1, 3)
    assert tensors.read("a").dtype == np.float32
    np.testing.assert_array_equal(tensors.read("a"), array.astype(np.float32))


def test_shards_are_read_as_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    whole = open_tensors(find_checkpoint(str(tiny_checkpoint)))
    names = sorted(whole.names())
    files = {name: f"model-0000{1 + place % 3}-of-00003.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: whole.read(name) for name in names if files[name] == file}, tmp_path / file)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": files}))
    parts = open_tensors(find_checkpoint(str(tmp_path)))
    assert sorted(parts.names()) == names
    for name in names:
        np.testing.assert_array_equal(whole.read(name), parts.read(name))


def test_other_types_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.array([1, 2])}, tmp_path / "x.safetensors")
    with pytest.raises(ExportError, match=r"x\.safetensors: tensor a is I64, not one of F32, F16, BF16"):
        Tensors([tmp_path / "x.safetensors"]).read("a")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "x.safetensors", tmp_path / "y.safetensors"]
    for file in files:
        save_file({"a": np.zeros(1, np.float32)}, file)
    with pytest.raises(ExportError, match=r"y\.safetensors: tensor a is in x\.safetensors too"):
        Tensors(files)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: b"PK" + content, lambda content: content[:5], lambda _: b""],
)
def test_a_corrupt_file_is_refused(
    tiny_copy: Path, refused: Callable[..., None], damage: Callable[[bytes], bytes]
) -> None:
    file = tiny_copy / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    refused(tiny_copy, f"{file}: not a readable safetensors file: ")


def test_what_git_has_not_fetched_is_said(tiny_copy: Path, refused: Callable[..., None]) -> None:
    file = tiny_copy / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n")
    refused(tiny_copy, f"{file}: a Git LFS pointer, not the weights; run: git lfs pull")


def test_a_pickle_is_refused_with_the_cure(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "model.safetensors").rename(tiny_copy / "pytorch_model.bin")
    refused(tiny_copy, "there is no model.safetensors, and a pickle (pytorch_model.bin) is never read; convert it: ")


def test_the_cure_names_the_folder_as_it_can_be_found(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "model.safetensors").rename(tiny_copy / "pytorch_model.bin")
    refused(
        tiny_copy, f"python -c \"from sentence_transformers import SentenceTransformer as S; S('{tiny_copy}').save("
    )


def test_the_cure_names_the_revision(tiny_copy: Path) -> None:
    (tiny_copy / "model.safetensors").rename(tiny_copy / "pytorch_model.bin")
    with pytest.raises(ExportError) as caught:
        open_tensors(Checkpoint("owner/name@v1", tiny_copy, "owner/name", "v1"))
    assert "S('owner/name', revision='v1').save('FOLDER')" in str(caught.value)


def test_a_missing_shard_is_named(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "model.safetensors").unlink()
    (tiny_copy / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    refused(tiny_copy, "model-00001-of-00001.safetensors: no such file, but model.safetensors.index.json names it")


@pytest.mark.parametrize("index", [{"a": 1}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_an_index_without_files_is_refused(tiny_copy: Path, refused: Callable[..., None], index: object) -> None:
    (tiny_copy / "model.safetensors").unlink()
    (tiny_copy / INDEX).write_text(json.dumps(index))
    refused(tiny_copy, f"{INDEX}: weight_map does not map tensors to files")
