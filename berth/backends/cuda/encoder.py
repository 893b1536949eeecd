"""The encoder on a GPU: a batch of sequences in, their vectors out, by one run of the CUDA graph or two.

Nothing is padded, and what the graph can pool never leaves the device unpooled. For the rest (other layers, `none`,
`words`, merges) the hidden states are fetched and pooled here as on the CPU. Sequences that request such features are
run apart from the others, so that one of them does not have a whole batch's tokens fetched.

Threads may be in it together on the one session, each with a stream of its own: while the GPU works for one, the other
packs and copies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from berth.artifact import Artifact, Manifest
from berth.backends.cuda.calibration import USUAL_BUDGET
from berth.backends.cuda.graph import POOLED, POOLED_MAX, layout, near_layout
from berth.backends.cuda.pooling import PoolRows, pool_rows, pooled_by_graph
from berth.backends.cuda.session import is_out_of_memory, open_session, shrinking
from berth.backends.golden import check_golden_vectors
from berth.backends.pooling import Project, finished, joined
from berth.backends.positions import places_without_padding
from berth.backends.projection import open_projection
from berth.backends.requested import check_finite, outputs_of, pooled, requested_by, results_of
from berth.errors import DeviceLostError, EncoderError, OutOfMemoryError
from berth.types import Encoding, Float32Array, Pooling, Requested, ResolvedFeature, TokenSequence, Vectors

Arrays = dict[str, NDArray[Any]]

POOLED_OUTPUTS = {Pooling.MAX: (POOLED_MAX,), Pooling.MEAN_MAX: (POOLED, POOLED_MAX)}
"""The graph's outputs that a pooling is joined of, where that is not `POOLED` alone."""


class CudaEncoder:
    """A graph loaded on one GPU."""

    def __init__(
        self, manifest: Manifest, session: ort.InferenceSession, device: int = 0, project: Project | None = None
    ) -> None:
        self.max_batch_tokens = USUAL_BUDGET
        self._session = session
        self._device = device
        self._project = project
        self._last = manifest.layers
        self._padding_id = manifest.padding_id
        self._window = manifest.window
        self._inputs = {each.name for each in session.get_inputs()}
        self._shrink = False

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Encode a batch of at least one sequence; gives one list of arrays a sequence, in the order of its features.

        Raises `OutOfMemoryError` where the GPU has no memory for it, `DeviceLostError` where it will do nothing more,
        and `EncoderError` where the run fails otherwise or a vector holds something that is not a finite number.
        """
        results: list[Vectors] = [[] for _ in sequences]
        apart = [any(self._fetches(feature) for feature in sequence.features) for sequence in sequences]
        for group in (False, True):
            places = [place for place, is_apart in enumerate(apart) if is_apart is group]
            if places:
                for place, vectors in zip(places, self._encode([sequences[place] for place in places]), strict=True):
                    results[place] = vectors
        return results

    def close(self) -> None:
        """Let go of the session and its memory."""
        del self._session

    def trim(self) -> None:
        """Have the next run return memory that larger ones needed; each run doing so would stop the GPU."""
        self._shrink = True

    def _fetches(self, feature: ResolvedFeature) -> bool:
        """Say whether a feature needs the vector of every token here."""
        return feature.pooling is not Pooling.POOLER and not pooled_by_graph(feature, self._last)

    def _encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        requested = requested_by(sequences)
        rows = pool_rows(sequences, requested, self._last)
        states = self._run(self._outputs(requested), self._feeds(sequences, rows))
        check_finite(states.values())
        vectors = {
            feature: self._vectors(feature, sequences, places, rows, states) for feature, places in requested.items()
        }
        for feature, each in vectors.items():
            if feature.projected:
                check_finite(each)
        return results_of(sequences, requested, vectors)

    def _feeds(self, sequences: Sequence[TokenSequence], rows: PoolRows) -> Arrays:
        encodings = [sequence.encoding for sequence in sequences]
        lengths = tuple(map(len, encodings))
        feeds: Arrays = {
            "input_ids": np.concatenate([encoding.ids for encoding in encodings]),
            "token_type_ids": np.concatenate([encoding.type_ids for encoding in encodings]),
            **layout(lengths),
            **({} if self._window is None else near_layout(lengths, self._window)),
            "pool_rows": rows.rows,
            "pool_weights": rows.weights,
        }
        places = places_without_padding(encodings, self._padding_id)
        if places is not None:
            feeds["position_ids"] = places
        return {name: array for name, array in feeds.items() if name in self._inputs}

    def _outputs(self, requested: Requested) -> list[str]:
        """Name the outputs that a batch needs."""
        names: set[str] = set()
        for feature in requested:
            if not pooled_by_graph(feature, self._last):
                names |= set(outputs_of(feature))
            else:
                names |= {output for pooling in feature.poolings for output in POOLED_OUTPUTS.get(pooling, (POOLED,))}
        return sorted(names)

    def _run(self, outputs: list[str], feeds: Arrays) -> dict[str, Float32Array]:
        """Run the graph; gives each output in float32."""
        options, self._shrink = (shrinking(self._device) if self._shrink else None), False
        try:
            values = self._session.run(outputs, feeds, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            if is_out_of_memory(error):
                self.trim()  # what is left of the arena is in pieces that were too small
                raise OutOfMemoryError(f"the GPU has no memory for the batch: {error}") from error
            if not self._works():
                raise DeviceLostError(f"the GPU has failed: {error}") from error
            raise EncoderError(f"the encoder failed: {error}") from error
        return {name: value.astype(np.float32, copy=False) for name, value in zip(outputs, values, strict=True)}

    def _works(self) -> bool:
        """Run the smallest batch: after a fault, as an illegal access to memory, CUDA fails whatever is asked of it."""
        token = Encoding(np.zeros(1, np.int32), np.zeros(1, np.int32))
        rows = PoolRows(np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32), {})
        try:
            self._session.run([POOLED], self._feeds([TokenSequence(token, ())], rows))
        except Exception as error:  # as above
            return is_out_of_memory(error)
        return True

    def _vectors(
        self,
        feature: ResolvedFeature,
        sequences: Sequence[TokenSequence],
        places: list[int],
        rows: PoolRows,
        states: Mapping[str, Any],
    ) -> Float32Array | Vectors:
        """Compute one feature for the sequences that request it, in the order of their places in the batch."""
        if not pooled_by_graph(feature, self._last):
            return pooled(feature, sequences, places, states, self._project)
        parts = [
            states[output][rows.of(feature, pooling, places)]
            for pooling in feature.poolings
            for output in POOLED_OUTPUTS.get(pooling, (POOLED,))
        ]
        return finished(feature, joined(parts), self._project)


def open_cuda_encoder(artifact: Artifact, device: int, memory_limit: int | None = None) -> CudaEncoder:
    """Load an artifact on a GPU and check its golden vectors.

    Raises what `open_session` raises, and `ArtifactError` where the GPU computes the golden vectors wrongly.
    """
    session = open_session(artifact, device, memory_limit)
    encoder = CudaEncoder(artifact.manifest, session, device, open_projection(artifact))
    check_golden_vectors(artifact, encoder)
    return encoder
