"""Sockets to listen on."""

import socket


class BindError(Exception):
    """A port that cannot be had; says which and why."""


def bind(host: str, port: int) -> socket.socket:
    """Take a port without listening on it yet; raises `BindError` where it cannot be had."""
    try:
        return _bound(host, port)
    except OSError as error:
        raise BindError(f"cannot serve on {host}:{port}: {error}") from error


def _bound(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Say where a socket listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
