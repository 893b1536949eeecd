"""The features that a batch requests, each with its sequences, and the results of the sequences from their vectors."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from berth.backends.pooling import Project, finished, merge_layers, pool
from berth.errors import EncoderError
from berth.types import Float32Array, Pooling, Requested, ResolvedFeature, TokenSequence, Vectors

POOLER_OUTPUT = "pooler_output"
"""The graph's output [sequences, hidden] of the pooler head."""


def hidden_state(layer: int) -> str:
    """Name the graph's output that is the hidden state [tokens, hidden] of a layer, 0 being the embeddings."""
    return f"hidden_state_{layer}"


def outputs_of(feature: ResolvedFeature) -> list[str]:
    """Name the graph's outputs that `pooled` makes a feature of."""
    return [POOLER_OUTPUT] if feature.pooling is Pooling.POOLER else list(map(hidden_state, feature.layers))


def requested_by(sequences: Sequence[TokenSequence]) -> Requested:
    """Gather the features of a batch; one that a sequence asks for twice is there once."""
    requested: dict[ResolvedFeature, list[int]] = {}
    for place, sequence in enumerate(sequences):
        for feature in dict.fromkeys(sequence.features):
            requested.setdefault(feature, []).append(place)
    return requested


def pooled(
    feature: ResolvedFeature,
    sequences: Sequence[TokenSequence],
    places: list[int],
    states: Mapping[str, Float32Array],
    project: Project | None = None,
) -> Float32Array | Vectors:
    """Make a feature of the sequences that request it of the graph's outputs, which are of all tokens of the batch."""
    if feature.pooling is Pooling.POOLER:
        return finished(feature, states[POOLER_OUTPUT][places])
    tokens = _tokens_of(sequences, places)
    layers = {layer: states[hidden_state(layer)][tokens] for layer in feature.layers}
    return pool(feature, merge_layers(feature, layers), [sequences[place].encoding for place in places], project)


def results_of(
    sequences: Sequence[TokenSequence], requested: Requested, vectors: Mapping[ResolvedFeature, Float32Array | Vectors]
) -> list[Vectors]:
    """Give each sequence its vectors, in the order of its features.

    `vectors` holds those of each feature, in the order of the places in `requested`.
    """
    results: list[dict[ResolvedFeature, Float32Array]] = [{} for _ in sequences]
    for feature, places in requested.items():
        for place, vector in zip(places, vectors[feature], strict=True):
            results[place][feature] = vector
    return [
        [result[feature] for feature in sequence.features] for sequence, result in zip(sequences, results, strict=True)
    ]


def check_finite(arrays: Iterable[Float32Array]) -> None:
    """Raise `EncoderError` where there is a number that is none."""
    for array in arrays:
        if not np.isfinite(array).all():
            raise EncoderError("the encoder gave a vector with numbers that are not finite")


def _tokens_of(sequences: Sequence[TokenSequence], places: list[int]) -> slice | NDArray[np.bool_]:
    """Select the packed rows of some sequences' tokens; a batch that wants one feature throughout is not copied."""
    if len(places) == len(sequences):
        return slice(None)
    chosen = np.zeros(len(sequences), dtype=bool)
    chosen[places] = True
    return np.repeat(chosen, [len(sequence) for sequence in sequences])
