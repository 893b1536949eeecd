"""The golden vectors find a device that computes wrongly before a user does."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from berth.artifact import Artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.backends.golden import check_golden_vectors
from berth.contract import FakeEncoder
from berth.errors import ArtifactError, EncoderError
from berth.types import Float32Array, TokenSequence, Vectors

Distort = Callable[[int, Float32Array], Float32Array]


def distorted(encoder: CpuEncoder, distort: Distort) -> FakeEncoder:
    """Make an encoder whose vectors are a little off."""
    return FakeEncoder(
        lambda sequences: [[distort(place, vector)] for place, [vector] in enumerate(encoder.encode(sequences))]
    )


def test_right_device_passes(artifact: Artifact, encoder: CpuEncoder) -> None:
    check_golden_vectors(artifact, encoder)


def only(place: int, factor: float) -> Distort:
    return lambda at, vector: vector * np.float32(factor if at == place else 1)


@pytest.mark.parametrize(
    "distort",
    [
        lambda _, vector: vector * np.float32(1.01),
        lambda _, vector: vector[::-1],
        lambda _, vector: np.zeros_like(vector),
        only(0, 1.01),
        only(1, -1),
        only(0, np.nan),
        only(1, np.nan),
        only(1, np.inf),
    ],
    ids=["scaled", "reversed", "zero", "first", "second", "first not a number", "second not a number", "infinite"],
)
def test_wrong_device_is_refused(artifact: Artifact, encoder: CpuEncoder, distort: Distort) -> None:
    with pytest.raises(ArtifactError, match="differ from the golden vectors"):
        check_golden_vectors(artifact, distorted(encoder, distort))


def test_device_that_is_wrong_about_texts_alone_is_refused(artifact: Artifact, encoder: CpuEncoder) -> None:
    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        return [[vector * np.float32(1.01 if len(sequences) == 1 else 1)] for [vector] in encoder.encode(sequences)]

    with pytest.raises(ArtifactError, match="differ from the golden vectors"):
        check_golden_vectors(artifact, FakeEncoder(encode))


def test_device_that_cannot_run_is_refused(artifact: Artifact) -> None:
    def fail(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        raise EncoderError("no kernel")

    with pytest.raises(ArtifactError, match="no kernel"):
        check_golden_vectors(artifact, FakeEncoder(fail))
