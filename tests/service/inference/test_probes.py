"""The probes find a device that computes wrongly before a user does."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from service.errors import ArtifactError, EncoderError
from service.inference.artifact import Artifact
from service.inference.encoder import CpuEncoder
from service.inference.probes import check_probes
from service.inference.types import Float32Array, Unit, Vectors

Distort = Callable[[int, Float32Array], Float32Array]


def distorted(encoder: CpuEncoder, distort: Distort) -> Callable[[Sequence[Unit]], list[Vectors]]:
    """Make an encoder whose vectors are a little off."""
    return lambda units: [[distort(place, vector)] for place, [vector] in enumerate(encoder(units))]


def test_right_device_passes(artifact: Artifact, encoder: CpuEncoder) -> None:
    check_probes(artifact, encoder)


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
    with pytest.raises(ArtifactError, match="differ from the probes"):
        check_probes(artifact, distorted(encoder, distort))


def test_device_that_is_wrong_about_texts_alone_is_refused(artifact: Artifact, encoder: CpuEncoder) -> None:
    def encode(units: Sequence[Unit]) -> list[Vectors]:
        return [[vector * np.float32(1.01 if len(units) == 1 else 1)] for [vector] in encoder(units)]

    with pytest.raises(ArtifactError, match="differ from the probes"):
        check_probes(artifact, encode)


def test_device_that_cannot_run_is_refused(artifact: Artifact) -> None:
    def fail(units: Sequence[Unit]) -> list[Vectors]:
        raise EncoderError("no kernel")

    with pytest.raises(ArtifactError, match="no kernel"):
        check_probes(artifact, fail)
