"""A graph's matrices in huge pages: of a file's, each small page is looked up anew wherever the matrices are read.

That takes a seventh of the time of a text of 16 tokens in the graph for short ones, whose products wait for memory.
"""

import json
from pathlib import Path

import numpy as np

from service.inference.runtime import ort
from service.inference.types import Float32Array


def read_matrices(index: str, weights: Path) -> dict[str, ort.OrtValue]:
    """Read what an index names, {"name": {"offset": bytes, "shape": [rows, columns]}, …}: float32, as in the file.

    They lie in one array, end to end, for which NumPy asks the kernel for huge pages. Raises `OSError` and `ValueError`
    where the file does not hold them.
    """
    places = json.loads(index)
    sizes = [int(np.prod(place["shape"])) for place in places.values()]
    memory: Float32Array = np.empty(sum(sizes), dtype=np.float32)
    matrices: dict[str, ort.OrtValue] = {}
    with weights.open("rb") as file:
        parts = np.split(memory, np.cumsum(sizes)[:-1])
        for (name, place), part in zip(places.items(), parts, strict=True):
            file.seek(place["offset"])
            if file.readinto(part.data.cast("B")) != part.nbytes:
                raise ValueError(f"{weights} ends within {name}")
            matrices[name] = ort.OrtValue.ortvalue_from_numpy(part.reshape(place["shape"]))
    return matrices
