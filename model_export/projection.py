"""The weights of a checkpoint's Dense modules, checked and written into the artifact."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from berth.artifact import Dense, DenseWeights, Normalize, write_projection
from model_export.checkpoint import Checkpoint
from model_export.errors import ExportError
from model_export.modules import DenseModule
from model_export.tensors import open_tensors


@dataclass(frozen=True, slots=True, eq=False)
class ReadProjection:
    """What pooled vectors pass through, and the weights of those of its layers that have some, by their places."""

    layers: tuple[Dense | Normalize, ...]
    weights: dict[int, DenseWeights]

    def write(self, folder: Path) -> None:
        """Write the weights, if there are some, into an artifact's folder."""
        if self.weights:
            write_projection(folder, self.weights)


def read_projection(checkpoint: Checkpoint, modules: tuple[DenseModule | Normalize, ...], width: int) -> ReadProjection:
    """Read the weights of the modules that pooled vectors of a width pass through.

    Raises `ExportError` where a module takes vectors of another width than it is given, or where a tensor is missing,
    unknown, of another shape or not finite.
    """
    layers: list[Dense | Normalize] = []
    weights: dict[int, DenseWeights] = {}
    for place, module in enumerate(modules):
        if isinstance(module, Normalize):
            layers.append(module)
            continue
        if module.layer.inputs != width:
            where = checkpoint.inside(module.folder).folder / "config.json"
            raise ExportError(f"{where}: in_features {module.layer.inputs}, but vectors of {width} numbers come to it")
        layers.append(module.layer)
        weights[place] = _weights(checkpoint.inside(module.folder), module)
        width = module.layer.outputs
    return ReadProjection(tuple(layers), weights)


def _weights(folder: Checkpoint, module: DenseModule) -> DenseWeights:
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (module.layer.outputs, module.layer.inputs)}
    if module.bias:
        shapes["linear.bias"] = (module.layer.outputs,)
    tensors = open_tensors(folder)
    for name in sorted(set(tensors.names()) ^ set(shapes)):
        known = "is missing" if name in shapes else "is not one of a Dense as its config.json has it"
        raise ExportError(f"{folder.folder}: tensor {name} {known}")
    read = {}
    for name, shape in shapes.items():
        if tensors.shape(name) != shape:
            raise ExportError(f"{folder.folder}: tensor {name} is {list(tensors.shape(name))}, expected {list(shape)}")
        read[name] = tensors.read(name)
        if not np.isfinite(read[name]).all():
            raise ExportError(f"{folder.folder}: tensor {name} has numbers that are not finite")
    return DenseWeights(read["linear.weight"], read.get("linear.bias"))
