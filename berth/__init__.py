"""Berth, a dock for BERT: what a user types and imports."""

from berth.async_client import AsyncClient
from berth.client import Client
from berth.protocol import Features, ServiceError

__all__ = ["AsyncClient", "Client", "Features", "ServiceError"]
