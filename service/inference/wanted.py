"""What a batch wants: its features, each with the units that want it; and how vectors become the units' results."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import EncoderError
from service.inference.pooling import merge_layers, pool
from service.inference.types import Feature, Float32Array, Unit, Vectors, Wanted

POOLER_OUTPUT = "pooler_output"
"""The graph's output [units, hidden] of the pooler head."""


def hidden_state(layer: int) -> str:
    """Name the graph's output that is the hidden state [tokens, hidden] of a layer, 0 being the embeddings."""
    return f"hidden_state_{layer}"


def wanted_by(units: Sequence[Unit]) -> Wanted:
    """Gather the features of a batch; one that a unit asks for twice is there once."""
    wanted: dict[Feature, list[int]] = {}
    for place, unit in enumerate(units):
        for feature in dict.fromkeys(unit.features):
            wanted.setdefault(feature, []).append(place)
    return wanted


def pooled(
    feature: Feature, units: Sequence[Unit], places: list[int], states: Mapping[str, Float32Array]
) -> Float32Array | Vectors:
    """Pool a feature of the units that want it out of the hidden states of all tokens of the batch."""
    tokens = _tokens_of(units, places)
    layers = {layer: states[hidden_state(layer)][tokens] for layer in feature.layers}
    return pool(feature, merge_layers(feature, layers), [units[place].encoding for place in places])


def results_of(
    units: Sequence[Unit], wanted: Wanted, vectors: Mapping[Feature, Float32Array | Vectors]
) -> list[Vectors]:
    """Give each unit its vectors, in the order of its features, out of those of each feature in its places' order."""
    results: list[dict[Feature, Float32Array]] = [{} for _ in units]
    for feature, places in wanted.items():
        for place, vector in zip(places, vectors[feature], strict=True):
            results[place][feature] = vector
    return [[result[feature] for feature in unit.features] for unit, result in zip(units, results, strict=True)]


def check_finite(arrays: Iterable[Float32Array]) -> None:
    """Raise `EncoderError` where there is a number that is none."""
    for array in arrays:
        if not np.isfinite(array).all():
            raise EncoderError("the encoder gave a vector with numbers that are not finite")


def _tokens_of(units: Sequence[Unit], places: list[int]) -> slice | NDArray[np.bool_]:
    """Select the packed rows of some units' tokens; a batch that wants one feature throughout is not copied."""
    if len(places) == len(units):
        return slice(None)
    chosen = np.zeros(len(units), dtype=bool)
    chosen[places] = True
    return np.repeat(chosen, [len(unit) for unit in units])
