"""Encoders on ONNX Runtime, a folder a device, and what they share.

ONNX Runtime's telemetry, which keeps an identifier on the disk and reports to its maker, is off before it is loaded.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
