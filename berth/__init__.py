"""Berth, a dock for BERT: what a user types and imports.

`import berth` needs httpx and NumPy alone; `Encoder` brings ONNX Runtime in where it is first named.
"""

from typing import TYPE_CHECKING, Any

from berth.client import AsyncClient, Client, Features, ServiceError

if TYPE_CHECKING:
    from berth.encoder import Encoder
    from berth.features import Feature

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "Encoder", "Feature", "Features", "ServiceError"]


def __getattr__(name: str) -> Any:
    match name:
        case "Encoder":
            from berth.encoder import Encoder  # noqa: PLC0415

            return Encoder
        case "Feature":
            from berth.features import Feature  # noqa: PLC0415

            return Feature
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
