"""The service over HTTP on this machine: bulk as base64 and as raw bytes, and single short requests."""

import base64
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.dialects import DIALECTS, Dialect, raw_bytes
from bench.figures import percentile
from bench.gpu.accuracy import LEAST_COSINE, lowest_cosine
from bench.gpu.options import Scale
from bench.gpu.speed import in_flight, scheduled
from bench.gpu.subject import SPECIAL, VOCABULARY, Subject
from bench.gpu.texts import CLS, SEP, sentences
from bench.load import ClosedLoop, Target, run_together
from bench.server import free_port, running
from bench.workloads import FRAME, Shape, Workload
from berth.artifact import Manifest, Precision
from berth.contract import Encode
from berth.types import Encoding, Float32Array, ResolvedFeature, TokenSequence

MEAN = 128
TEXTS_IN_BULK = 64
BULK_REQUESTS = 64
BULK_AT_ONCE = 32
SINGLES_AT_ONCE = 32
WORDS = VOCABULARY - len(SPECIAL)


def _base64_body(texts: list[str], _: str | None) -> dict[str, Any]:
    return {"input": texts, "encoding_format": "base64"}


def _base64_vectors(answer: Any) -> list[list[float]]:
    return [np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4").tolist() for item in answer["data"]]


@dataclass(frozen=True, slots=True)
class Load:
    """One load and what came of it."""

    name: str
    texts_per_second: float
    tokens_per_second: float
    p50_ms: float
    p99_ms: float
    client_cpu: float
    """Cores that this client, one process, used: near 1, and it is the client that is slow."""
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the service should answer: the same encoder in this process, each word of a text one token."""

    encode: Encode
    manifest: Manifest

    def agrees(self, texts: Sequence[str], vectors: Float32Array) -> bool:
        """Say whether vectors are those of some texts."""
        feature = ResolvedFeature(self.manifest.pooling, (self.manifest.layers,), normalize=self.manifest.normalize)
        sequences = []
        for text in texts:
            ids = [CLS, *(int(word[1:]) + len(SPECIAL) for word in text.split()), SEP]
            sequences.append(TokenSequence(Encoding(np.array(ids, np.int32), np.zeros(len(ids), np.int32)), (feature,)))
        right = np.stack([found for [found] in self.encode(sequences)])
        return vectors.shape == right.shape and lowest_cosine(vectors, right) >= LEAST_COSINE["fp16"]


def measure_served(subject: Subject, precision: Precision, scale: Scale) -> dict[str, Any]:
    """Load the service in each way; gives the encoder alone on texts of the same lengths beside it."""
    artifact = subject.artifact(precision)
    manifest = artifact.manifest
    longest = min(scale.means[-1], manifest.max_tokens)
    mean = min(MEAN, longest // 2)
    sequences = sentences(mean, TEXTS_IN_BULK * BULK_REQUESTS, longest, manifest.layers, manifest.vocab_size)
    encode = subject.encoder(precision)
    alone = max(in_flight(encode, scheduled(sequences, budget), scale.seconds) for budget in scale.budgets)
    bulk = _workload("bulk", TEXTS_IN_BULK, BULK_AT_ONCE, [len(sequence) for sequence in sequences])
    short = [8 + number % 17 for number in range(256)]
    one, many = _workload("single", 1, 1, short), _workload("singles", 1, SINGLES_AT_ONCE, short)
    raw = raw_bytes(manifest.hidden_size)
    spelled, plain = Dialect("/v1/embeddings", _base64_body, _base64_vectors), DIALECTS["openai"]
    reference = Reference(encode, manifest)
    loads: list[Load] = []
    runs = [
        ("bulk, raw bytes", bulk, raw),
        ("single", one, plain),
        ("32 singles", many, plain),
        ("bulk, base64", bulk, spelled),
    ]
    with _service(artifact.folder, subject) as base:
        for name, workload, dialect in runs:
            loads.append(_load(name, Target("berth", base, dialect), workload, reference, scale))
            print(f"{name}: {loads[-1].texts_per_second:.0f} texts/s", flush=True)
    return {
        "model": subject.name,
        "precision": manifest.precision,
        "width": manifest.hidden_size,
        "mean_tokens": mean,
        "alone_tokens_per_second": alone,
        "loads": [asdict(load) for load in loads],
    }


def _load(name: str, target: Target, workload: Workload, reference: Reference, scale: Scale) -> Load:
    (record,) = run_together(ClosedLoop(target, workload, warmup=scale.warm_up, seconds=max(0.2, 3 * scale.seconds)))
    errors = dict(record.errors)
    for number, answer in record.sample.kept[:4]:
        start = number * workload.shape.texts
        texts = workload.texts[start : start + workload.shape.texts]
        if not reference.agrees(texts, target.dialect.read(answer)):
            errors[f"wrong vectors in the answer to request {number}"] = 1
    rate = record.window.rate(record.spans)
    latencies = [seconds * 1000 for seconds in record.window.latencies(record.spans)]
    tokens = sum(len(text.split()) + FRAME for text in workload.texts) / len(workload.texts)
    return Load(
        name=name,
        texts_per_second=rate * workload.shape.texts,
        tokens_per_second=rate * workload.shape.texts * tokens,
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        client_cpu=record.client_cpu,
        errors=errors,
    )


def _workload(name: str, texts: int, at_once: int, lengths: Sequence[int]) -> Workload:
    """Write texts of made-up words, each of them one token."""
    random = np.random.default_rng(11)
    written = [
        " ".join(f"w{word}" for word in random.integers(0, WORDS, size=max(length - FRAME, 1)).tolist())
        for length in lengths
    ]
    return Workload(Shape(name, name, texts, at_once, lambda _: 0, len(written)), written)


@contextmanager
def _service(artifact: Path, subject: Subject) -> Iterator[str]:
    """Have the service running; gives where it listens."""
    port = free_port()
    flags = ["--model", str(artifact), "--port", str(port), "--shutdown-grace", "0"]
    flags += ["--device", "cuda"] if subject.on_gpu else ["--device", "cpu", "--max-batch-tokens", "128"]
    log = subject.folder / f"service-{port}.log"
    command = [sys.executable, "-m", "service", *flags]
    cores = os.sched_getaffinity(0)
    with running(command, port, DIALECTS["openai"], cores=cores, model=None, log=log) as server:
        yield server.base
