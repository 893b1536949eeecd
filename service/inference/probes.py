"""The probes: a few texts whose vectors are known, replayed on the device at every start."""

import numpy as np

from service.errors import ArtifactError, EncoderError
from service.inference.artifact import Artifact
from service.inference.runner import Encode
from service.inference.types import Feature, Pooling, Unit


def check_probes(artifact: Artifact, encode: Encode) -> None:
    """Raise `ArtifactError` where this device does not give the vectors that the export computed in float64."""
    manifest = artifact.manifest
    layer = manifest.layers if manifest.probe_layer is None else manifest.probe_layer
    feature = Feature(Pooling.MEAN, (layer,))
    probes = artifact.probes()
    units = [Unit(probe.encoding, (feature,)) for probe in probes]
    try:
        results = encode(units)
        results += [encode([unit])[0] for unit in units]  # which may go another way
    except EncoderError as error:
        raise ArtifactError(f"{artifact.folder}: the probes cannot be run on this machine: {error}") from error
    differences = [
        float(np.linalg.norm(vector - probe.vector) / np.linalg.norm(probe.vector))
        for probe, [vector] in zip(probes * 2, results, strict=True)
    ]
    worst = float(np.max(differences))  # unlike max(), it does not lose a NaN
    if not worst <= manifest.probe_tolerance:
        raise ArtifactError(
            f"{artifact.folder}: this machine's vectors differ from the probes by {worst:.2g} of their length, "
            f"at most {manifest.probe_tolerance:.2g} is right: a driver, library or processor computes wrongly"
        )
