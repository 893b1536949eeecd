"""The encoder threads that a test starts."""

import threading
from collections.abc import Callable

import pytest


@pytest.fixture
def encoder_threads() -> Callable[[], list[threading.Thread]]:
    """Give a function that lists the encoder threads this test has started and that still run."""
    others = set(threading.enumerate())
    return lambda: [
        thread for thread in threading.enumerate() if thread.name.startswith("encoder-") and thread not in others
    ]
