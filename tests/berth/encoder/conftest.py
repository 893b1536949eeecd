"""`berth.Encoder` of a backend that is none, and of the default model."""

from collections.abc import Iterator
from typing import Any

import pytest

from berth.artifact import Artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.contract import FakeEncoder
from berth.encoder import Encoder
from berth.model import Model
from berth.text.tokenizer import Tokenizer
from tests.berth.encoder.noting import MakeEncoder, Noting


@pytest.fixture
def backend() -> Noting:
    return Noting()


@pytest.fixture
def make_encoder(artifact: Artifact, tokenizer: Tokenizer) -> Iterator[MakeEncoder]:
    """Give a function that makes an encoder of backends, with the default model's tokenizer; closed after the test."""
    made: list[Encoder] = []

    def make(*backends: FakeEncoder, manifest: dict[str, Any] | None = None, **options: Any) -> Encoder:
        changed = artifact.manifest.model_copy(update=manifest or {})
        made.append(Encoder.of(Model(changed, tokenizer, backends), **options))
        return made[-1]

    yield make
    for encoder in made:
        encoder.close()


@pytest.fixture
def fake(make_encoder: MakeEncoder, backend: Noting) -> Encoder:
    """Give an encoder with a backend that is no model."""
    return make_encoder(backend, threads=1)


@pytest.fixture(scope="module")
def real(artifact: Artifact, tokenizer: Tokenizer, encoder: CpuEncoder) -> Encoder:
    """Give an encoder of the default model."""
    return Encoder.of(Model(artifact.manifest, tokenizer, [encoder]), threads=2)


@pytest.fixture(params=["fake", "real"])
def either(request: pytest.FixtureRequest) -> Encoder:
    """Give each of the two."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Encoder)
    return found
