"""A graph's matrices are read as they lie in the file, into one array."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.inference.matrices import read_matrices


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\0" * 8 + np.arange(40, dtype=np.float32).tobytes())
    return path


def test_matrices_are_those_of_the_file(weights: Path) -> None:
    index = json.dumps({"b": {"offset": 8 + 80, "shape": [2, 3]}, "a": {"offset": 8, "shape": [4, 5]}})
    matrices = {name: value.numpy() for name, value in read_matrices(index, weights).items()}
    assert list(matrices) == ["b", "a"]
    np.testing.assert_array_equal(matrices["a"], np.arange(20).reshape(4, 5))
    np.testing.assert_array_equal(matrices["b"], np.arange(20, 26).reshape(2, 3))


def test_matrices_lie_end_to_end(weights: Path) -> None:
    index = json.dumps({"a": {"offset": 8, "shape": [4, 5]}, "b": {"offset": 88, "shape": [2, 3]}})
    first, second = read_matrices(index, weights).values()
    assert second.data_ptr() - first.data_ptr() == 4 * 5 * 4


@pytest.mark.parametrize("offset", [8 + 4 * 36, 4096])
def test_file_that_is_too_short_is_an_error(weights: Path, offset: int) -> None:
    with pytest.raises(ValueError, match="ends within a"):
        read_matrices(json.dumps({"a": {"offset": offset, "shape": [5, 1]}}), weights)
