"""Holds the CPU's graphs against the float64 forward pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from berth.artifact import EXACT_PRODUCTS, GRAPH, SLOW_FUSIONS, Precision, WeightBits
from berth.backends.cpu.packing import Feeds, pack
from berth.types import Float32Array, Layout
from model_export.comparison import Batch, compare, differences, expected_outputs
from model_export.errors import ExportError

LIMITS: dict[Precision, float] = {"fp32": 5e-5, "int8": 0.5}
"""The largest difference of a token's row from the reference, as a share of that row's length.

Sound graphs are off by 1e-6 to 3e-6; the mildest of mistakes (tanh GELU for the exact one, in random weights) by 3e-4.
In int8 the worst token of a sound graph is off by 0.03 to 0.3, and rows that are not related at all by 1.
"""

NARROW_LIMIT = 0.7
"""The same of int8 with weights in 7 bits, whose worst token is off by 0.05 to 0.42. A matrix in another one's place
makes 1.1 and more, and of what makes less the first layer tells, where rounding alike leaves next to nothing."""

ROUNDED_LIMIT = 1e-4
"""Where products are rounded: the median difference of the first layer's rows from a reference that rounds alike.

A sound graph is off by 1e-6; now and then a number lies so near the middle of two codes that it is rounded to the other
one, which is why it is the median. From layer to layer such rows become more: the layers behind are not compared.
"""

GOLDEN_TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 4e-3, "int8": 1e-2}
"""The largest difference from a golden vector, as a share of its length, that a device unknown to the export may show.

In int8 the golden vectors are of the first layer, from a reference that rounds alike: a right kernel is off by 3e-3
where a code differs, one whose sums saturate (x86 without VNNI) by 2e-2 and more. In fp16 it is more where rounding
has more to do: see `probe_tolerance`. A card that computes an fp32 graph with tensor cores (TF32) is off by 1e-3 and
does not pass.
"""

GOLDEN_ROOM = 4
"""How many times as far off as the export's own arithmetic in fp16 a card may be: MiniLM's 2.2e-3 give it 9e-3."""

GOLDEN_LAYERS: dict[Precision, int | None] = {"fp32": None, "fp16": None, "int8": 1}


def probe_tolerance(precision: Precision, figures: Mapping[str, float]) -> float:
    """Say how far a device's vector may be off a golden vector, given what the verification measured."""
    tolerance = GOLDEN_TOLERANCES[precision]
    return max(tolerance, GOLDEN_ROOM * figures["max_pooled_difference"]) if precision == "fp16" else tolerance


def verify_rounded(folder: Path, batches: Sequence[Batch], layout: Layout) -> dict[str, float]:
    """Run the graph and compare its first layer with states that were rounded as it rounds."""
    session = _open(folder / GRAPH)
    errors = np.concatenate(
        [
            differences(
                _run(session, pack(encodings, layout))["hidden_state_1"].astype(np.float64),
                np.concatenate([text.hidden[1] for text in states]),
            )
            for encodings, states in batches
        ]
    )
    median = float(np.median(errors))
    if not median <= ROUNDED_LIMIT:  # not `>`, which is false for NaN
        raise ExportError(
            f"hidden_state_1 of the graph is off its own arithmetic by {median:.1e} of its length in half of the rows; "
            f"{ROUNDED_LIMIT:.0e} is allowed: an operator of this machine computes int8 wrongly"
        )
    return {"median_rounded_difference": median}


def verify(
    folder: Path, batches: Sequence[Batch], layout: Layout, precision: Precision, weight_bits: WeightBits | None = None
) -> dict[str, float]:
    """Run the graph, compare every output, and give the figures; raise `ExportError` where they are too far off."""
    session = _open(folder / GRAPH)
    limit = NARROW_LIMIT if weight_bits == 7 else LIMITS[precision]
    compared = [
        compare(_run(session, pack(encodings, layout)), expected_outputs(states), limit, precision)
        for encodings, states in batches
    ]
    return {
        "max_relative_difference": max(error for error, _ in compared),
        "min_cosine": min(cosine for _, cosine in compared),
        "texts": sum(len(encodings) for encodings, _ in batches),
    }


def _open(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    options.add_session_config_entry(*EXACT_PRODUCTS)  # it is the graph that is verified here, not this processor
    try:
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOW_FUSIONS,
        )
    except Exception as error:  # ONNX Runtime's errors have no other class in common
        raise ExportError(f"ONNX Runtime does not load the graph: {str(error).splitlines()[0]}") from error


def _run(session: onnxruntime.InferenceSession, feeds: Feeds) -> dict[str, Float32Array]:
    names = [output.name for output in session.get_outputs()]
    needed = {each.name: feeds[each.name] for each in session.get_inputs()}
    try:
        return dict(zip(names, session.run(names, needed), strict=True))
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not run the graph: {str(error).splitlines()[0]}") from error
