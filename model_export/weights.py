"""A network's tensors under our own names, each found in the checkpoint and of the shape it must have."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from berth.types import Float32Array
from model_export.errors import ExportError, HalfError
from model_export.families.family import Family, Part, Spelling
from model_export.network import POOLER, Network
from model_export.tensors import TensorSource

LARGEST_FLOAT16 = 65504.0

OLD_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}
"""Norms were named so by checkpoints that were converted from TensorFlow."""


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of the checkpoint, or a part of its rows."""

    name: str
    part: Part | None = None

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Say what the whole tensor's shape must be for ours to be of a shape."""
        return ours if self.part is None else (ours[0] * self.part.count, *ours[1:])


@dataclass(frozen=True, slots=True)
class Weights:
    """Our names to tensors, read when asked for and not kept."""

    tensors: TensorSource
    sources: dict[str, Source]
    left_out: list[str]
    """The checkpoint's names of the tensors that belong to heads."""

    @property
    def has_pooler(self) -> bool:
        return POOLER[0] in self.sources

    def __contains__(self, name: str) -> bool:
        """Say whether there is a tensor of our name."""
        return name in self.sources

    def __getitem__(self, name: str) -> Float32Array:
        """Read a tensor by our name; raises `ExportError` where it holds a number that is none."""
        source = self.sources[name]
        tensor = self.tensors.read(source.name)
        if source.part is not None:
            rows = len(tensor) // source.part.count
            tensor = tensor[source.part.place * rows :][:rows]
        if not np.isfinite(tensor).all():
            raise ExportError(f"tensor {source.name} holds a number that is not finite")
        return tensor


class HalfWeights(Weights):
    """The same tensors rounded to float16, still in arrays of float32."""

    @classmethod
    def of(cls, weights: Weights) -> Self:
        """Take a checkpoint's weights, to be rounded as they are asked for."""
        return cls(weights.tensors, weights.sources, weights.left_out)

    def __getitem__(self, name: str) -> Float32Array:
        """Read a tensor by our name; raises `HalfError` where float16 does not hold it."""
        tensor = super().__getitem__(name)
        largest = float(np.abs(tensor).max())
        if largest > LARGEST_FLOAT16:
            raise HalfError(f"{name} holds {largest:.3g}, and float16 at most {LARGEST_FLOAT16:.0f}")
        return tensor.astype(np.float16).astype(np.float32)


def match_weights(network: Network, family: Family, tensors: TensorSource) -> Weights:
    """Find each of the network's tensors; a missing, an unknown or a misshapen one stops the export."""
    shapes = network.shapes()
    theirs = _plain_names(tensors, family)
    spelling = max(family.spellings, key=lambda spelling: len(_wanted(family, spelling, shapes).keys() & theirs.keys()))
    wanted = _wanted(family, spelling, shapes)
    left_out = [name for plain, name in theirs.items() if plain not in wanted and plain.startswith(family.heads)]
    for plain, name in theirs.items():
        if plain not in wanted and name not in left_out and not plain.endswith(family.buffers or ("\0",)):
            raise ExportError(f"tensor {name} {list(tensors.shape(name))} is not part of a {family.name} encoder")
    sources = {}
    has_pooler = any(plain in theirs for plain, ours in wanted.items() if set(POOLER) & set(ours))
    for plain, ours in wanted.items():
        for name in ours:
            if plain in theirs:
                sources[name] = Source(theirs[plain], _part(family, spelling, name))
                expected, actual = sources[name].shape(shapes[name]), tensors.shape(theirs[plain])
                if actual != expected:
                    asked = f"but config.json asks for {list(expected)}"
                    raise ExportError(f"tensor {theirs[plain]} is {list(actual)}, {asked}")
            elif name not in POOLER or has_pooler:
                raise ExportError(f"tensor {plain} {list(shapes[name])} is missing from the checkpoint")
    return Weights(tensors, sources, left_out)


def _wanted(family: Family, spelling: Spelling, shapes: dict[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Give the checkpoint's plain names, each with ours that are made of it; a family may have no pooler."""
    wanted: dict[str, list[str]] = {}
    for ours in shapes:
        if source := family.source(spelling, ours):
            wanted.setdefault(source[0], []).append(ours)
        else:
            assert ours in POOLER, f"{family.name} has no source for {ours}"
    return wanted


def _part(family: Family, spelling: Spelling, ours: str) -> Part | None:
    source = family.source(spelling, ours)
    return source and source[1]


def _plain_names(tensors: TensorSource, family: Family) -> dict[str, str]:
    """Give the checkpoint's names by what is left of them without a prefix and in today's endings."""
    plain_names: dict[str, str] = {}
    for name in tensors.names():
        plain = _plain(name, family.prefixes)
        if plain in plain_names:
            raise ExportError(f"tensor {name} is in the checkpoint twice, as {plain_names[plain]} too")
        plain_names[plain] = name
    return plain_names


def _plain(name: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
