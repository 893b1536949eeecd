"""The encoder: a batch of units in, their vectors out, by one run of a graph in ONNX Runtime."""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np

from service.errors import ArtifactError, EncoderError
from service.inference.artifact import EXACT_PRODUCTS, MATRICES, SHORT_LENGTHS, SLOW_FUSIONS, Artifact
from service.inference.matrices import read_matrices
from service.inference.packing import pack, pack_one
from service.inference.pooling import normalize
from service.inference.probes import check_probes
from service.inference.runtime import ort
from service.inference.types import Encoding, Feature, Float32Array, Pooling, Unit, Vectors
from service.inference.wanted import POOLER_OUTPUT, check_finite, hidden_state, pooled, results_of, wanted_by

logger = logging.getLogger("berth")


def open_cpu_encoder(artifact: Artifact, *, short_graph: bool = True) -> "CpuEncoder":
    """Load an artifact on the CPU, in int8 by exact kernels where the fast ones do not give what the probes say.

    The graph for short texts, if there is one, can be left out.
    """
    encoder = CpuEncoder(artifact, short_graph=short_graph)
    if artifact.manifest.precision == "int8" and not _is_right(artifact, encoder):
        del encoder  # before another takes as much memory
        encoder = CpuEncoder(artifact, exact=True)
    return encoder


def _is_right(artifact: Artifact, encoder: "CpuEncoder") -> bool:
    try:
        check_probes(artifact, encoder)
    except ArtifactError as error:
        logger.warning("int8: exact kernels, slower, take over: without VNNI the fast ones add wrongly: %s", error)
        return False
    return True


class CpuEncoder:
    """An artifact loaded on the CPU. One run uses one core; runs from several threads share the weights."""

    def __init__(self, artifact: Artifact, *, short_graph: bool = True, exact: bool = False) -> None:
        self._heads = artifact.manifest.heads
        self._session = _open(artifact.graph, exact=exact)
        short = artifact.short_graph if short_graph else None
        self._short = None if short is None else _ShortSession(short, artifact.weights)

    @property
    def has_short_graph(self) -> bool:
        """Whether a short text alone goes through a graph of its own."""
        return self._short is not None

    def without_short_graph(self) -> Self:
        """Give an encoder that shares all with this one but that graph."""
        encoder = copy.copy(self)
        encoder._short = None
        return encoder

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        """Encode a batch of at least one unit; gives one list of arrays a unit, in the order of its features.

        Raises `EncoderError` where the run fails or a vector holds something that is not a finite number.
        """
        wanted = wanted_by(units)
        states = self._run(units, _outputs_of(wanted))
        vectors = {feature: _vectors_of(feature, units, places, states) for feature, places in wanted.items()}
        for each in vectors.values():
            check_finite([each] if isinstance(each, np.ndarray) else each)
        return results_of(units, wanted, vectors)

    def _run(self, units: Sequence[Unit], outputs: list[str]) -> dict[str, Float32Array]:
        encodings = [unit.encoding for unit in units]
        alone = len(units) == 1 and len(units[0]) in SHORT_LENGTHS and POOLER_OUTPUT not in outputs
        try:
            if alone and self._short is not None:
                values = self._short.run(outputs, encodings[0])
            else:
                values = self._session.run(outputs, pack(encodings, self._heads))
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            raise EncoderError(f"the encoder failed: {error}") from error
        return dict(zip(outputs, values, strict=True))


def _open(
    graph: Path, initializers: Mapping[str, ort.OrtValue] = MappingProxyType({}), *, exact: bool = False
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # one block for each shape that comes: more memory, and no faster
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry(*EXACT_PRODUCTS)
    for name, value in initializers.items():
        options.add_initializer(name, value)
    try:
        return ort.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except Exception as error:  # as above
        raise ArtifactError(f"ONNX Runtime cannot load {graph}: {error}") from error


class _ShortSession:
    """The graph for short texts, its matrices in memory of our own."""

    def __init__(self, graph: Path, weights: Path) -> None:
        metadata = _open(graph).get_modelmeta().custom_metadata_map
        try:
            # The session reads them, and does not keep them alive.
            self._matrices = read_matrices(metadata[MATRICES], weights)
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{graph}: its matrices cannot be read from {weights}: {error}") from error
        self._session = _open(graph, self._matrices)

    def run(self, outputs: list[str], encoding: Encoding) -> list[Float32Array]:
        values: list[Float32Array] = self._session.run(outputs, pack_one(encoding))
        return values


def _outputs_of(features: Iterable[Feature]) -> list[str]:
    """Name the graph's outputs that some features need."""
    names = {
        name
        for feature in features
        for name in (
            [POOLER_OUTPUT] if feature.pooling is Pooling.POOLER else [hidden_state(layer) for layer in feature.layers]
        )
    }
    return sorted(names)


def _vectors_of(
    feature: Feature, units: Sequence[Unit], places: list[int], states: dict[str, Float32Array]
) -> Float32Array | Vectors:
    """Compute one feature for the units that want it, in the order of their places in the batch."""
    if feature.pooling is Pooling.POOLER:
        rows = states[POOLER_OUTPUT][places]
        return normalize(rows) if feature.normalize else rows
    return pooled(feature, units, places, states)
