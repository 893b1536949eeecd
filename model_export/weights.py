"""A network's tensors under our own names, each found in the checkpoint and of the shape it must have."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from berth.types import Float32Array
from model_export.errors import ExportError, HalfError
from model_export.families.family import Family
from model_export.network import POOLER, Network
from model_export.tensors import Tensors

LARGEST_FLOAT16 = 65504.0

OLD_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}
"""Norms were named so by checkpoints that were converted from TensorFlow."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Our names to tensors, read when asked for and not kept."""

    tensors: Tensors
    names: dict[str, str]
    left_out: list[str]
    """The checkpoint's names of the tensors that belong to heads."""

    @property
    def has_pooler(self) -> bool:
        return POOLER[0] in self.names

    def __getitem__(self, name: str) -> Float32Array:
        """Read a tensor by our name."""
        return self.tensors.read(self.names[name])


class HalfWeights(Weights):
    """The same tensors rounded to float16, still in arrays of float32."""

    @classmethod
    def of(cls, weights: Weights) -> Self:
        """Take a checkpoint's weights, to be rounded as they are asked for."""
        return cls(weights.tensors, weights.names, weights.left_out)

    def __getitem__(self, name: str) -> Float32Array:
        """Read a tensor by our name; raises `HalfError` where float16 does not hold it."""
        tensor = super().__getitem__(name)
        largest = float(np.abs(tensor).max())
        if largest > LARGEST_FLOAT16:
            raise HalfError(f"{name} holds {largest:.3g}, and float16 at most {LARGEST_FLOAT16:.0f}")
        return tensor.astype(np.float16).astype(np.float32)


def match_weights(network: Network, family: Family, tensors: Tensors) -> Weights:
    """Find each of the network's tensors; a missing, an unknown or a misshapen one stops the export."""
    shapes = network.shapes()
    ours = {family.rename(name): name for name in shapes}
    found: dict[str, str] = {}
    left_out = []
    for theirs in tensors.names():
        plain = _plain(theirs, family.prefix)
        if plain in ours:
            if ours[plain] in found:
                raise ExportError(f"tensor {theirs} is in the checkpoint twice, as {found[ours[plain]]} too")
            found[ours[plain]] = theirs
        elif plain.startswith(family.heads):
            left_out.append(theirs)
        elif plain not in family.buffers:
            raise ExportError(f"tensor {theirs} {list(tensors.shape(theirs))} is not part of a {family.name} encoder")
    needed = shapes.keys() if set(POOLER) & found.keys() else shapes.keys() - set(POOLER)
    for name in shapes:
        if name in needed and name not in found:
            raise ExportError(f"tensor {family.rename(name)} {list(shapes[name])} is missing from the checkpoint")
        if name in found and (actual := tensors.shape(found[name])) != shapes[name]:
            raise ExportError(f"tensor {found[name]} is {list(actual)}, but config.json asks for {list(shapes[name])}")
    return Weights(tensors, found, left_out)


def _plain(name: str, prefix: str) -> str:
    name = name.removeprefix(prefix)
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
