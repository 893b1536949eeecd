"""Makes ONNX Runtime and the wall clock fail.

Python runs this at the start of each process that has this folder on its path. So the service is started as it always
is, and what fails is the library below it. Which way a run fails is told by the tokens in it, whose ids come by the
environment; a run that hangs ends when a file appears; how wrong the clock is, a file says too.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

RAISING, SPOILT, HANGING = (int(number) for number in os.environ["FAULT_TOKENS"].split(","))
RELEASE, CLOCK = Path(os.environ["FAULT_RELEASE"]), Path(os.environ["FAULT_CLOCK"])

run = onnxruntime.InferenceSession.run
true_time = time.time_ns


def fail(self: Any, names: Any, feeds: Any, *others: Any) -> Any:
    """Run the graph, unless a token in it says otherwise."""
    ids = feeds["input_ids"]
    if (ids == RAISING).any():
        raise RuntimeError("a fault was asked for")
    while (ids == HANGING).any() and not RELEASE.exists():
        time.sleep(0.01)
    outputs = run(self, names, feeds, *others)
    if (ids == SPOILT).any():
        outputs = [np.where((ids == SPOILT)[:, None], np.float32("nan"), output) for output in outputs]
    return outputs


def jumping_time_ns() -> int:
    """Tell the time, wrong by what the file says; one that is just being written says nothing."""
    return true_time() + int(float(CLOCK.read_text() or 0) * 1e9)


onnxruntime.InferenceSession.run = fail
time.time_ns = jumping_time_ns  # from Python 3.13 on it is this one that logging reads
time.time = lambda: jumping_time_ns() / 1e9
