"""The tensors of a checkpoint, read one at a time from safetensors files."""

from pathlib import Path
from typing import Any, Protocol

import ml_dtypes  # noqa: F401  (by its import NumPy learns the type name "bfloat16", which safetensors asks for)
import numpy as np
from safetensors import SafetensorError, safe_open

from berth.types import Float32Array
from model_export.checkpoint import SAFETENSORS, Checkpoint
from model_export.errors import ExportError

INDEX = f"{SAFETENSORS}.index.json"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
FLOATS = ("F32", "F16", "BF16")


class TensorSource(Protocol):
    """Names to tensors."""

    def names(self) -> list[str]:
        """List the tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it."""

    def read(self, name: str) -> Float32Array:
        """Read a tensor as float32."""


class Tensors:
    """Names to tensors over all files of a checkpoint; only the headers are read until a tensor is asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._paths: dict[str, Path] = {}
        self._files: dict[Path, Any] = {}
        for path in files:
            try:
                self._files[path] = safe_open(path, framework="np")
                names = list(self._files[path].keys())
            except (SafetensorError, OSError) as error:
                if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
                    raise ExportError(f"{path}: a Git LFS pointer, not the weights; run: git lfs pull") from error
                raise ExportError(f"{path}: not a readable safetensors file: {error}") from error
            for name in names:
                if name in self._paths:
                    raise ExportError(f"{path}: tensor {name} is in {self._paths[name].name} too")
                self._paths[name] = path

    def names(self) -> list[str]:
        """List the tensors of all files."""
        return list(self._paths)

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it."""
        return tuple(self._slice(name).get_shape())

    def read(self, name: str) -> Float32Array:
        """Read a tensor as float32."""
        dtype = self._slice(name).get_dtype()
        if dtype not in FLOATS:
            raise ExportError(f"{self._paths[name]}: tensor {name} is {dtype}, not one of {', '.join(FLOATS)}")
        tensor: Float32Array = self._files[self._paths[name]].get_tensor(name).astype(np.float32, copy=False)
        return tensor

    def _slice(self, name: str) -> Any:
        return self._files[self._paths[name]].get_slice(name)


def open_tensors(checkpoint: Checkpoint) -> Tensors:
    """Open the safetensors file, or all the files its index names."""
    if path := checkpoint.file(SAFETENSORS):
        return Tensors([path])
    index = checkpoint.object(INDEX)
    if not index:
        revision = f", revision='{checkpoint.revision}'" if checkpoint.revision else ""
        raise ExportError(
            f"{checkpoint.folder}: there is no {SAFETENSORS}, and a pickle (pytorch_model.bin) is never read; convert "
            'it: python -c "from sentence_transformers import SentenceTransformer as S; '
            f"S('{checkpoint.asked}'{revision}).save('FOLDER')\""
        )
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ExportError(f"{checkpoint.folder / INDEX}: weight_map does not map tensors to files")
    return Tensors([_shard(checkpoint, name) for name in sorted(set(weight_map.values()))])


def _shard(checkpoint: Checkpoint, name: str) -> Path:
    path = checkpoint.file(name)
    if path is None:
        raise ExportError(f"{checkpoint.folder / name}: no such file, but {INDEX} names it")
    return path
