"""`python -m bench.fake_server`: Berth's service with an encoder that only sleeps, as long as a device would compute.

All else is the service's own: HTTP, tokenizer, queue, threads, log. What the encoder on the CPU does in Python around a
run of the graph is done too, on states that are always the same: packing and pooling hold the interpreter's lock.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from berth.artifact import Artifact, Manifest
from berth.backends.cpu.encoder import MAX_BATCH_TOKENS
from berth.backends.cpu.packing import pack
from berth.backends.requested import check_finite, hidden_state, pooled, requested_by, results_of
from berth.contract import Encode, FakeEncoder
from berth.model import Model, open_tokenizer
from berth.types import TokenSequence, Vectors
from service.logs import start_logging
from service.server import serve
from service.settings import Settings

BATCH_TOKENS = MAX_BATCH_TOKENS
"""Of the batch whose seconds are given."""


def around_a_run(manifest: Manifest) -> Encode:
    """Give what does to a batch what `CpuEncoder.encode` does before and after its run of the graph."""
    most = max(BATCH_TOKENS, manifest.max_tokens)
    states = np.random.default_rng(0).standard_normal((most, manifest.hidden_size), dtype=np.float32)

    def answer(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        requested = requested_by(sequences)
        pack([sequence.encoding for sequence in sequences], manifest.layout)
        found = {hidden_state(layer): states for feature in requested for layer in feature.layers}
        packed = {name: state[: sum(map(len, sequences))] for name, state in found.items()}
        vectors = {feature: pooled(feature, sequences, places, packed) for feature, places in requested.items()}
        for each in vectors.values():
            check_finite([each] if isinstance(each, np.ndarray) else each)
        return results_of(sequences, requested, vectors)

    return answer


def load(artifact: Artifact, _: Sequence[int], __: int | None, *, seconds_per_batch: float) -> Model:
    """Load an artifact's tokenizer, and put an encoder that sleeps in the place of its own."""
    encoder = FakeEncoder(
        around_a_run(artifact.manifest),
        seconds_per_token=seconds_per_batch / BATCH_TOKENS,
        max_batch_tokens=BATCH_TOKENS,
    )
    return Model(artifact.manifest, open_tokenizer(artifact), [encoder])


def main() -> int:
    """Serve until a signal; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.fake_server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="artifact whose tokenizer and sizes are served")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True, help="encoder threads of each priority")
    parser.add_argument("--seconds-per-batch", type=float, required=True, help=f"for {BATCH_TOKENS} tokens")
    given = parser.parse_args()
    settings = Settings(model=str(given.model), port=given.port, threads=given.threads, shutdown_grace=0)
    start_logging(settings.log_format)
    return serve(settings, partial(load, seconds_per_batch=given.seconds_per_batch))


if __name__ == "__main__":
    sys.exit(main())
