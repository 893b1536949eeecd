"""A model, loaded: an artifact with its tokenizer and a backend for each device that it runs on."""

import logging
from collections.abc import Sequence
from typing import Self

from berth.artifact import Artifact, Manifest
from berth.backends.cpu.encoder import open_cpu_encoder
from berth.backends.cuda.encoder import open_cuda_encoder
from berth.backends.warmup import warm_up
from berth.contract import Backend
from berth.errors import EncoderError
from berth.text.tokenizer import Tokenizer

logger = logging.getLogger("berth")


class Model:
    """What service, library and benchmark encode with."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, backends: Sequence[Backend]) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.backends = backends
        self.max_batch_tokens = min(backend.max_batch_tokens for backend in backends)

    @classmethod
    def load(cls, artifact: Artifact, gpus: Sequence[int] = (), gpu_memory_limit: int | None = None) -> Self:
        """Load an artifact and check its golden vectors: once for all cores, or once on each GPU.

        `gpu_memory_limit` bounds, in bytes, what batches take of a GPU's memory. Raises `ArtifactError` and
        `DeviceError`.
        """
        backends: list[Backend]
        if artifact.manifest.target == "cuda":
            backends = [open_cuda_encoder(artifact, index, gpu_memory_limit) for index in gpus or (0,)]
        else:
            backends = [open_cpu_encoder(artifact)]
        return cls(artifact.manifest, open_tokenizer(artifact), backends)

    def warm_up(self, tokens: int, times: int) -> None:
        """Run the largest batches of `tokens` tokens, `times` of them at once; a failure is logged.

        On GPUs nothing is run; at the first start the calibration runs large batches.
        """
        if self.manifest.target == "cpu":
            try:
                warm_up(self.backends[0], self.manifest, tokens, times)
            except (EncoderError, RuntimeError) as error:  # the latter where a thread cannot be started
                logger.warning("the largest batches fail: %s", error)

    def close(self) -> None:
        """Let go of the model's memory."""
        for backend in self.backends:
            backend.close()


def open_tokenizer(artifact: Artifact) -> Tokenizer:
    """Load an artifact's tokenizer; raises `ArtifactError`."""
    manifest = artifact.manifest
    return Tokenizer(
        artifact.tokenizer,
        max_tokens=manifest.max_tokens,
        vocab_size=manifest.vocab_size,
        frame=manifest.frame,
    )
