"""The real all-mpnet-base-v2, which `make test-slow` fetches: its vectors beside sentence-transformers', and STS-B."""

import csv
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from berth.artifact import read_manifest, sha256
from berth.encoder import Encoder
from tests.end_to_end.test_accuracy import STS_BENCHMARK, thousand_texts

CHECKPOINT = Path(os.environ.get("MPNET", "~/.cache/berth-tests/all-mpnet-base-v2")).expanduser()
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
BEYOND_SIZE = 250 << 20
"""Bytes that an export may take beyond three times the checkpoint's size."""
TEXTS = 200
MEASURED = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_maxrss, used.ru_utime + used.ru_stime)"
)
"""Runs a command and prints its peak in KiB and its seconds. A child of this process would begin with its memory."""

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CHECKPOINT.is_dir(), reason=f"{CHECKPOINT} is not there; `make test-slow` fetches it"),
]

Export = Callable[..., Path]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Give a function that exports the checkpoint by the command, prints what that took, and bounds its memory."""
    weights = CHECKPOINT / "model.safetensors"
    assert sha256(weights) == SHA256
    most = 3 * weights.stat().st_size + BEYOND_SIZE

    @cache
    def exported(*options: str) -> Path:
        out = tmp_path_factory.mktemp("mpnet") / "artifact"
        command = [sys.executable, "-m", "model_export", str(CHECKPOINT), str(out), *options]
        start = time.monotonic()
        used = subprocess.run([sys.executable, "-c", MEASURED, *command], check=True, stdout=subprocess.PIPE, text=True)
        kibibytes, processors = used.stdout.splitlines()[-1].split()
        peak = int(kibibytes) * 1024
        seconds = f"{time.monotonic() - start:.1f} s, {float(processors):.1f} s of processors"
        print(f"export {' '.join(options)}: {seconds}, {peak / 2**20:.0f} MiB at most, of {most / 2**20:.0f} allowed")
        assert peak <= most
        return out

    return exported


def test_vectors_are_sentence_transformers(export: Export) -> None:
    chosen = thousand_texts()
    texts = [*chosen[:40], *chosen[40 :: len(chosen) // (TEXTS - 40)]][:TEXTS]
    assert len(texts) == TEXTS
    model = SentenceTransformer(str(CHECKPOINT), device="cpu")
    expected = model.encode(texts, batch_size=8).astype(np.float64)
    with Encoder(export("--precision", "fp32")) as encoder:
        assert encoder.manifest.max_tokens == model.max_seq_length == 384
        vectors = encoder.encode(texts).astype(np.float64)
    cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    worst = int(cosines.argmin())
    print(f"1 - cosine: {1 - cosines[worst]:.1e} at most, over {TEXTS} texts")
    assert cosines[worst] >= 0.999999, (texts[worst][:60], cosines[worst])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.linalg.norm(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize("bits", ["7", "8"])
def test_sts_benchmark_in_int8_is_near_fp32(export: Export, bits: str) -> None:
    folder = export("--precision", "int8", "--int8-weights", bits)
    assert read_manifest(folder).weight_bits == int(bits)
    exact, rounded = sts_benchmark(export("--precision", "fp32")), sts_benchmark(folder)
    print(f"STS-B: fp32 {exact:.2f}, int8 with weights in {bits} bits {rounded:.2f}")
    assert abs(exact - 83.42) <= 0.02
    assert abs(rounded - exact) <= 0.5


@cache
def sts_benchmark(folder: Path) -> float:
    """Compute Spearman's correlation x 100 over the test split."""
    with gzip.open(STS_BENCHMARK, "rt", encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    with Encoder(folder) as encoder:
        first, second = (encoder.encode([row[name] for row in rows]) for name in ("sentence1", "sentence2"))
    cosines: NDArray[np.float32] = (first * second).sum(axis=1)  # they are normalised
    return float(100 * spearmanr(cosines, [float(row["score"]) for row in rows]).statistic)
