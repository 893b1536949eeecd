"""Golden vectors: a few texts whose vectors are known, replayed on the device at every start."""

import numpy as np

from berth.artifact import Artifact
from berth.contract import Backend
from berth.errors import ArtifactError, EncoderError
from berth.types import Pooling, ResolvedFeature, TokenSequence


def check_golden_vectors(artifact: Artifact, backend: Backend) -> None:
    """Raise `ArtifactError` where this device does not give the vectors that the export computed in float64."""
    manifest = artifact.manifest
    layer = manifest.layers if manifest.probe_layer is None else manifest.probe_layer
    feature = ResolvedFeature(Pooling.MEAN, (layer,))
    golden = artifact.golden_vectors()
    sequences = [TokenSequence(each.encoding, (feature,)) for each in golden]
    try:
        results = backend.encode(sequences)
        results += [backend.encode([sequence])[0] for sequence in sequences]  # a text alone may go another way
    except EncoderError as error:
        message = f"{artifact.folder}: the golden vectors cannot be computed on this machine: {error}"
        raise ArtifactError(message) from error
    differences = [
        float(np.linalg.norm(vector - each.vector) / np.linalg.norm(each.vector))
        for each, [vector] in zip(golden * 2, results, strict=True)
    ]
    worst = float(np.max(differences))  # unlike max(), it does not lose a NaN
    if not worst <= manifest.probe_tolerance:
        raise ArtifactError(
            f"{artifact.folder}: this machine's vectors differ from the golden vectors by {worst:.2g} of their length, "
            f"at most {manifest.probe_tolerance:.2g} is right: a driver, library or processor computes wrongly"
        )
