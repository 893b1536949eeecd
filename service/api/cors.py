"""Which web pages' scripts may call the service from a browser: none, unless the settings name their origins."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

READABLE = ("retry-after", "server-timing", "x-dtype", "x-request-id", "x-shape", "x-truncated-inputs")
"""The headers of an answer that scripts may read, beside those that they always may."""


def add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Let scripts of these origins call. Cookies are not taken: there are none, a key is shown in a header."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=READABLE,
        max_age=3600,
    )
