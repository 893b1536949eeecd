"""The HTTP service: settings, the API and the inference behind it."""

__version__ = "0.1.0"
