"""The encoder on a GPU: a batch of units in, their vectors out, by one run of the CUDA graph or two.

Nothing is padded, and what the graph can pool never leaves the device unpooled. Of the rest (other layers, `none`,
`words`, merges) the hidden states are fetched and pooled here as on the CPU; units that want such are run apart from
the others, so that one of them does not have a whole batch's tokens fetched.

A run is: pack, copy to the GPU, run, copy back. Threads may be in it together on the one session, each with a stream
and a block of its own: while the GPU works for one, the other packs and copies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import DeviceLostError, EncoderError, OutOfMemoryError
from service.inference.artifact import Artifact, Manifest
from service.inference.cuda_graph import POOLED, POOLED_MAX, layout
from service.inference.cuda_pooling import PoolRows, pool_rows, pooled_by_graph
from service.inference.cuda_session import is_out_of_memory, open_session, pinned_memory, shrinking
from service.inference.pooling import normalize
from service.inference.runtime import ort
from service.inference.staging import Block, HostMemory, Staging
from service.inference.types import Feature, Float32Array, Pooling, Unit, Vectors, Wanted
from service.inference.wanted import (
    POOLER_OUTPUT,
    check_finite,
    hidden_state,
    pooled,
    results_of,
    wanted_by,
)

Arrays = dict[str, NDArray[Any]]

SMALL = {POOLED, POOLED_MAX, POOLER_OUTPUT}
"""Outputs that come into the block; a batch's hidden states may be gigabytes, too much for memory that is kept."""


class CudaEncoder:
    """A graph loaded on one GPU, and the host memory that it is fed from."""

    def __init__(self, manifest: Manifest, session: ort.InferenceSession, memory: HostMemory, device: int = 0) -> None:
        self._session = session
        self._memory = memory
        self._device = device
        self._staging = Staging(memory)
        self._last = manifest.layers
        self._hidden = manifest.hidden_size
        self._inputs = {each.name for each in session.get_inputs()}
        self._types: dict[str, type[np.generic]] = {
            each.name: np.float16 if "float16" in each.type else np.float32 for each in session.get_outputs()
        }
        self._shrink = False

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        """Encode a batch of at least one unit; gives one list of arrays a unit, in the order of its features.

        Raises `OutOfMemoryError` where the GPU has no memory for it, `DeviceLostError` where it will do nothing more,
        and `EncoderError` where the run fails otherwise or a vector holds something that is not a finite number.
        """
        results: list[Vectors] = [[] for _ in units]
        apart = [any(self._fetches(feature) for feature in unit.features) for unit in units]
        for group in (False, True):
            places = [place for place, is_apart in enumerate(apart) if is_apart is group]
            if places:
                for place, vectors in zip(places, self._encode([units[place] for place in places]), strict=True):
                    results[place] = vectors
        return results

    def trim(self) -> None:
        """Have the next run return memory that larger ones needed; each run doing so would stop the GPU."""
        self._shrink = True

    def _fetches(self, feature: Feature) -> bool:
        """Say whether a feature needs the vector of every token here."""
        return feature.pooling is not Pooling.POOLER and not pooled_by_graph(feature, self._last)

    def _encode(self, units: Sequence[Unit]) -> list[Vectors]:
        wanted = wanted_by(units)
        rows = pool_rows(units, wanted, self._last)
        states = self._run(self._feeds(units, rows), self._shapes(units, wanted, rows))
        check_finite(states.values())
        vectors = {feature: self._vectors(feature, units, places, rows, states) for feature, places in wanted.items()}
        return results_of(units, wanted, vectors)

    def _feeds(self, units: Sequence[Unit], rows: PoolRows) -> Arrays:
        encodings = [unit.encoding for unit in units]
        feeds: Arrays = {
            "input_ids": np.concatenate([encoding.ids for encoding in encodings]),
            "token_type_ids": np.concatenate([encoding.type_ids for encoding in encodings]),
            **layout(tuple(map(len, encodings))),
            "pool_rows": rows.rows,
            "pool_weights": rows.weights,
        }
        return {name: array for name, array in feeds.items() if name in self._inputs}

    def _shapes(self, units: Sequence[Unit], wanted: Wanted, rows: PoolRows) -> dict[str, tuple[int, ...]]:
        """Say which outputs a batch needs, and how large each is."""
        tokens = sum(map(len, units))
        shapes: dict[str, tuple[int, ...]] = {}
        for feature in wanted:
            if feature.pooling is Pooling.POOLER:
                shapes[POOLER_OUTPUT] = (len(units), self._hidden)
            elif self._fetches(feature):
                shapes |= {hidden_state(layer): (tokens, self._hidden) for layer in feature.layers}
            else:
                if feature.pooling is not Pooling.MAX:
                    shapes[POOLED] = (len(rows.rows), self._hidden)
                if feature.pooling in {Pooling.MAX, Pooling.MEAN_MAX}:
                    shapes[POOLED_MAX] = (len(rows.rows), self._hidden)
        return shapes

    def _run(self, feeds: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Float32Array]:
        """Run the graph; gives each output in float32, in memory of its own.

        A run ends by waiting for its own stream, so that what is to come back is there (ONNX Runtime's
        device_stream_collection.cc, `CleanUp`). `synchronize_outputs` would wait for the GPU, so for the other run too.
        """
        options, self._shrink = (shrinking(self._device) if self._shrink else None), False
        with self._staging.block() as block:
            try:
                self._memory.select_gpu()
                binding = self._session.io_binding()
                staged = self._bind(binding, block, feeds, shapes)
                self._session.run_with_iobinding(binding, options)
            except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
                if is_out_of_memory(error):
                    self.trim()  # what is left of the arena is in pieces that were too small
                    raise OutOfMemoryError(f"the GPU has no memory for the batch: {error}") from error
                if not self._memory.gpu_works():
                    raise DeviceLostError(f"the GPU has failed: {error}") from error
                raise EncoderError(f"the encoder failed: {error}") from error
            return {name: array.astype(np.float32, copy=name in SMALL) for name, array in staged.items()}

    def _bind(
        self, binding: ort.IOBinding, block: Block, feeds: Arrays, shapes: Mapping[str, tuple[int, ...]]
    ) -> Arrays:
        """Bind inputs, which copies them to the GPU, and outputs, into which the run will copy; gives the outputs."""
        sizes = {name: int(np.prod(shape)) * np.dtype(self._types[name]).itemsize for name, shape in shapes.items()}
        block.prepare([feed.nbytes for feed in feeds.values()] + [sizes[name] for name in SMALL & sizes.keys()])
        for name, feed in feeds.items():
            array = block.array(feed.shape, feed.dtype.type)
            array[...] = feed
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        outputs: Arrays = {}
        for name, shape in shapes.items():
            array = block.array(shape, self._types[name]) if name in SMALL else np.empty(shape, self._types[name])
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            outputs[name] = array
        return outputs

    def _vectors(
        self, feature: Feature, units: Sequence[Unit], places: list[int], rows: PoolRows, states: Mapping[str, Any]
    ) -> Float32Array | Vectors:
        """Compute one feature for the units that want it, in the order of their places in the batch."""
        if feature.pooling is Pooling.POOLER:
            vectors = states[POOLER_OUTPUT][places]
        elif pooled_by_graph(feature, self._last):
            of = rows.of(feature, places)
            match feature.pooling:
                case Pooling.MAX:
                    vectors = states[POOLED_MAX][of]
                case Pooling.MEAN_MAX:
                    vectors = np.concatenate([states[POOLED][of], states[POOLED_MAX][of]], axis=1)
                case _:
                    vectors = states[POOLED][of]
        else:
            return pooled(feature, units, places, states)
        return normalize(vectors) if feature.normalize else vectors


def open_cuda_encoder(artifact: Artifact, device: int, memory_limit: int | None = None) -> CudaEncoder:
    """Load an artifact on a GPU; raises what `open_session` raises."""
    session = open_session(artifact, device, memory_limit)
    return CudaEncoder(artifact.manifest, session, pinned_memory(device), device)
