"""The HTTP service: settings, the API and the inference behind it."""

import os

__version__ = "0.1.0"

# Before anything imports ONNX Runtime, which would otherwise report to its maker and keep an identifier on the disk.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
