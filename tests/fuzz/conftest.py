"""A service to throw things at, and how many: `make fuzz` throws more than CI does."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import START_BOUND, Service, _launcher, _listening, _ready

CASES = int(os.environ.get("FUZZ_CASES", "1000"))
"""Cases that schemathesis makes of the OpenAPI."""
BODIES = int(os.environ.get("FUZZ_BODIES", "2000"))
"""Bodies of random bytes."""
FILES = int(os.environ.get("FUZZ_FILES", "2000"))
"""Damaged files of a checkpoint, of each kind."""
COMMANDS = int(os.environ.get("FUZZ_COMMANDS", "20"))
"""Of these, those that are given to the command."""
SEED = int(os.environ.get("FUZZ_SEED", "1"))


@pytest.fixture(scope="session")
def fuzzed(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a service of the default model, which must come through it without an error of its own."""
    with _launcher(tmp_path_factory.mktemp("fuzz")) as launch:
        service = launch(minilm, "--max-text-chars", "20000", "--max-body-bytes", "1000000")
        service.until(lambda: _listening(service) and _ready(service), START_BOUND)
        yield service
        assert service.process.poll() is None, service.tail
        assert "Traceback" not in service.log, service.log
        assert service.stop() == 0
