"""ONNX Runtime, loaded so that it uses all that the processor has.

From 1.32 on it takes tiles (AMX: products of int8 two to three times as fast as by VNNI) only where it has seen, while
it is loaded, that they outlive a thread's move from one core to another, at which some hypervisors lose them. A process
that is kept on one core cannot show that, and would do without; so it leaves its core for as long as loading takes.
"""

import numpy as np  # noqa: F401  # before ONNX Runtime loads it there: it starts threads, which stay where they began

from service.cores import every_core

with every_core():
    import onnxruntime as ort

__all__ = ["ort"]
