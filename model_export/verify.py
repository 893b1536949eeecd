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

LIMITS: dict[Precision, float] = {"fp32": 5e-5, "int8": 0.5}
"""The largest difference of a token's row from the reference, as a share of that row's length.

Sound graphs are off by 1e-6 to 3e-6; the mildest of mistakes (tanh GELU for the exact one, in random weights) by 3e-4.
In int8 the worst token of a sound graph is off by 0.05 to 0.3, and rows that are not related at all by 1.
"""

ROUNDED_LIMIT = 1e-4
"""Where products are rounded: the median difference of the first layer's rows from a reference that rounds alike.

A sound graph is off by 1e-6; now and then a number lies so near the middle of two codes that it is rounded to the other
one, which is why it is the median. From layer to layer such rows become more: the layers behind are not compared.
"""

PROBE_TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "int8": 1e-2}
"""The largest difference of a probe's vector, on devices and with kernels that the export does not know.

In int8 the probes are of the first layer and rounded alike: a sound kernel is off by 3e-3 where a code differs, one
whose sums saturate (x86 without VNNI) by 2e-2 and more.
"""

PROBE_LAYERS: dict[Precision, int | None] = {"fp32": None, "int8": 1}

Batch = tuple[Sequence[Encoding], Sequence[States]]
"""Texts that are run together, and what each of them must come to."""


def verify_rounded(folder: Path, batches: Sequence[Batch], heads: int) -> dict[str, float]:
    """Run the graph and compare its first layer with states that were rounded as it rounds."""
    session = _open(folder)
    errors = np.concatenate(
        [
            _differences(
                _run(session, encodings, heads)["hidden_state_1"].astype(np.float64),
                np.concatenate([text.hidden[1] for text in states]),
            )
            for encodings, states in batches
        ]
    )
    median = float(np.median(errors))
    if not median <= ROUNDED_LIMIT:  # not `>`, as below
        raise ExportError(
            f"hidden_state_1 of the graph is off its own arithmetic by {median:.1e} of its length in half of the rows; "
            f"{ROUNDED_LIMIT:.0e} is allowed: an operator of this machine computes int8 wrongly"
        )
    return {"median_rounded_difference": median}


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
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
        cosines = (rows * expected).sum(axis=1) / lengths
        return float(_differences(rows, expected).max()), float(cosines.min())


def _differences(rows: Float64Array, expected: Float64Array) -> Float64Array:
    """Give each row's difference, as a share of what its length must be."""
    differences: Float64Array = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return differences
