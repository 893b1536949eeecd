"""How far a graph's outputs are from what they must be."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from berth.types import Encoding, Float32Array
from model_export.errors import ExportError
from model_export.reference import Float64Array, States

Batch = tuple[Sequence[Encoding], Sequence[States]]
"""Texts that are run together, and what each of them must come to."""

Expected = Iterable[tuple[str, Float64Array]]
"""Names of outputs, and what they must be."""


def expected_outputs(states: Sequence[States]) -> Expected:
    """Name the outputs that the graphs of all targets have."""
    for layer in range(len(states[0].hidden)):
        yield f"hidden_state_{layer}", np.concatenate([text.hidden[layer] for text in states])
    if states[0].pooler is not None:
        yield "pooler_output", np.stack([text.pooler for text in states if text.pooler is not None])


def compare(
    outputs: Mapping[str, Float32Array], expected: Expected, limit: float, precision: str
) -> tuple[float, float]:
    """Give the largest difference of a row, as a share of its length, and the smallest cosine, over all outputs.

    Raises `ExportError` where a difference is past the limit.
    """
    errors, cosines = [0.0], [1.0]
    for name, rows in expected:
        actual = outputs[name].astype(np.float64)
        with np.errstate(invalid="ignore"):  # a NaN or an infinity is past any limit
            error, cosine = float(differences(actual, rows).max()), float(_cosines(actual, rows).min())
        if not error <= limit:  # not `>`: nothing compares with NaN
            raise ExportError(
                f"{name} of the graph is off the float64 forward pass by {error:.1e} of its length; "
                f"{precision} allows {limit:.0e}"
            )
        errors.append(error)
        cosines.append(cosine)
    return max(errors), min(cosines)


def differences(rows: Float64Array, expected: Float64Array) -> Float64Array:
    """Give each row's difference, as a share of what its length must be."""
    shares: Float64Array = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return shares


def _cosines(rows: Float64Array, expected: Float64Array) -> Float64Array:
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    cosines: Float64Array = (rows * expected).sum(axis=1) / lengths
    return cosines
