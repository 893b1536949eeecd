"""The encoder on the CPU: a batch of sequences in, their vectors out, by one run of a graph in ONNX Runtime."""

import logging
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from berth.artifact import EXACT_PRODUCTS, SLOW_FUSIONS, Artifact
from berth.backends.cpu.packing import pack
from berth.backends.golden import check_golden_vectors
from berth.backends.projection import open_projection
from berth.backends.requested import check_finite, outputs_of, pooled, requested_by, results_of
from berth.errors import ArtifactError, EncoderError
from berth.processor import vnni_here
from berth.types import TokenSequence, Vectors

MAX_BATCH_TOKENS = 384
"""More spread the reading of the weights over more tokens, until a batch's numbers fall out of the processor's caches.
Of 128 to 1,024 tokens 384 is the fastest or within 3 % of it on all kinds of processor that were measured:
docs/performance.md."""

logger = logging.getLogger("berth")


def open_cpu_encoder(artifact: Artifact) -> "CpuEncoder":
    """Load an artifact on the CPU and check its golden vectors.

    Int8 of 8-bit weights is loaded again with exact kernels where the fast ones compute the golden vectors wrongly.
    Of 7-bit weights the fast ones are exact everywhere: of codes up to 255 and 63 two products come to
    2 * 255 * 63 = 32,130 at most, which 16 bits hold. Where the other weights would be better here, the log says so.

    Raises `ArtifactError` where the graph cannot be loaded or this machine computes it wrongly.
    """
    encoder = CpuEncoder(artifact)
    try:
        check_golden_vectors(artifact, encoder)
    except ArtifactError as error:
        if artifact.manifest.weight_bits != 8:
            raise
        logger.warning(
            "int8: exact kernels, slower, take over: without VNNI the fast ones add products of 8-bit weights wrongly; "
            "export again with --int8-weights 7, which is faster here: %s",
            error,
        )
        encoder.close()  # before another takes as much memory
        encoder = CpuEncoder(artifact, exact=True)
        check_golden_vectors(artifact, encoder)
    if artifact.manifest.weight_bits == 7 and vnni_here():
        logger.info(
            "int8: the weights are in 7 bits; on this processor, which has VNNI, 8 are as fast and nearer to fp32: "
            "export again with --int8-weights 8"
        )
    return encoder


class CpuEncoder:
    """An artifact loaded on the CPU. One run uses one core; runs from several threads share the weights."""

    def __init__(self, artifact: Artifact, *, exact: bool = False) -> None:
        self.max_batch_tokens = MAX_BATCH_TOKENS
        self._layout = artifact.manifest.layout
        self._project = open_projection(artifact)
        self._session = _open(artifact, exact=exact)
        self._inputs = [each.name for each in self._session.get_inputs()]

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Encode a batch of at least one sequence; gives of each one array a feature, in the order of its features.

        Raises `EncoderError` where the run fails or a vector holds something that is not a finite number.
        """
        requested = requested_by(sequences)
        outputs = sorted({name for feature in requested for name in outputs_of(feature)})
        packed = pack([sequence.encoding for sequence in sequences], self._layout)
        feeds = {name: packed[name] for name in self._inputs}
        try:
            states = dict(zip(outputs, self._session.run(outputs, feeds), strict=True))
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            raise EncoderError(f"the encoder failed: {error}") from error
        vectors = {
            feature: pooled(feature, sequences, places, states, self._project) for feature, places in requested.items()
        }
        for each in vectors.values():
            check_finite([each] if isinstance(each, np.ndarray) else each)
        return results_of(sequences, requested, vectors)

    def close(self) -> None:
        """Let go of the session and its memory."""
        del self._session


def _open(artifact: Artifact, *, exact: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # one block for each shape that comes: more memory, and no faster
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry(*EXACT_PRODUCTS)
    try:
        return ort.InferenceSession(
            artifact.graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except Exception as error:  # as above
        raise ArtifactError(f"ONNX Runtime cannot load {artifact.graph}: {error}") from error
