"""The file of the weights, which an artifact's graphs share: ONNX's external data."""

from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from berth.artifact import WEIGHTS
from berth.types import Float32Array
from model_export.quantize import Int8Array

PAGE = 4096
"""Tensors begin at a multiple of this, so that ONNX Runtime maps them instead of copying them."""

Array = Float32Array | NDArray[np.float16] | Int8Array


class TensorFile:
    """The file under construction: tensors one after the other, each by its name and once."""

    def __init__(self, folder: Path) -> None:
        self._file: BinaryIO = (folder / WEIGHTS).open("wb")
        self._places: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        """Nothing to prepare: the file is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def place(self, name: str, array: Array) -> dict[str, str]:
        """Write a tensor, unless its name is known, and say where it lies: the entries of ONNX's `external_data`."""
        if name not in self._places:
            self._file.seek(-self._file.tell() % PAGE, 1)
            place = {"location": WEIGHTS, "offset": self._file.tell(), "length": array.nbytes}
            self._places[name] = {key: str(value) for key, value in place.items()}
            self._file.write(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data.cast("B"))
        return self._places[name]
