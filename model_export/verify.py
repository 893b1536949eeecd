"""Holds the graph against the float64 forward pass."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from model_export.errors import ExportError
from model_export.reference import Float64Array, States
from service.inference.artifact import GRAPH, SLOW_FUSIONS, Precision
from service.inference.packing import pack
from service.inference.types import Encoding, Float32Array

LIMITS: dict[Precision, float] = {"fp32": 5e-5}
"""The largest difference of a token's row from the reference, as a share of that row's length.

Sound graphs are off by 1e-6 to 3e-6; the mildest of mistakes (tanh GELU for the exact one, in random weights) by 3e-4.
"""

PROBE_TOLERANCES: dict[Precision, float] = {"fp32": 1e-4}
"""The same for a probe's vector, on devices and with kernels that the export does not know."""

Batch = tuple[Sequence[Encoding], Sequence[States]]
"""Texts that are run together, and what each of them must come to."""


def verify(folder: Path, batches: Sequence[Batch], heads: int, precision: Precision) -> dict[str, float]:
    """Run the graph, compare every output, and give the figures; raise `ExportError` where they are too far off."""
    session = _open(folder)
    errors, cosines = [], []
    for encodings, states in batches:
        outputs = _run(session, encodings, heads)
        for name, expected in _expected(states):
            error, cosine = _compare(outputs[name], expected)
            if not error <= LIMITS[precision]:  # not `>`: nothing compares with NaN
                raise ExportError(
                    f"{name} of the graph is off the float64 forward pass by {error:.1e} of its length; "
                    f"{precision} allows {LIMITS[precision]:.0e}"
                )
            errors.append(error)
            cosines.append(cosine)
    texts = sum(len(encodings) for encodings, _ in batches)
    return {"max_relative_difference": max(errors), "min_cosine": min(cosines), "texts": texts}


def _open(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    try:
        return onnxruntime.InferenceSession(
            folder / GRAPH,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOW_FUSIONS,
        )
    except Exception as error:  # ONNX Runtime's errors have no other class in common
        raise ExportError(f"ONNX Runtime does not load the graph: {str(error).splitlines()[0]}") from error


def _run(session: onnxruntime.InferenceSession, encodings: Sequence[Encoding], heads: int) -> dict[str, Float32Array]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, pack(encodings, heads)), strict=True))
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not run the graph: {str(error).splitlines()[0]}") from error


def _expected(states: Sequence[States]) -> Iterable[tuple[str, Float64Array]]:
    for layer in range(len(states[0].hidden)):
        yield f"hidden_state_{layer}", np.concatenate([text.hidden[layer] for text in states])
    if states[0].pooler is not None:
        yield "pooler_output", np.stack([text.pooler for text in states if text.pooler is not None])


def _compare(actual: Float32Array, expected: Float64Array) -> tuple[float, float]:
    """Give the largest relative difference and the smallest cosine of all rows."""
    rows = actual.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a NaN or an infinity is reported by the caller
        length = np.linalg.norm(expected, axis=1)
        errors = np.linalg.norm(rows - expected, axis=1) / length
        cosines = (rows * expected).sum(axis=1) / (np.linalg.norm(rows, axis=1) * length)
    return float(errors.max()), float(cosines.min())
