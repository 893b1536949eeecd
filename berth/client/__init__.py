"""The client: Berth's API as Python functions that give NumPy arrays."""

from berth.client.asynchronous import AsyncClient
from berth.client.blocking import Client
from berth.client.protocol import Features, ServiceError

__all__ = ["AsyncClient", "Client", "Features", "ServiceError"]
