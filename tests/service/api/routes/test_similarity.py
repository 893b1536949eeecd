"""POST /v1/similarity: its formats, metrics and caps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from berth.artifact import Dense
from berth.backends.cpu.encoder import CpuEncoder
from berth.contract import FakeEncoder
from berth.types import Metric, Pooling, ResolvedFeature, TokenSequence, Vectors

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

SOURCES = ["a ship in harbour", "bread and butter", "the tide turns"]
TARGETS = ["a boat at its berth", "a slice of toast", "the moon pulls the sea", "a loaf"]
SCIPY = {"cosine": "cosine", "euclidean": "euclidean", "manhattan": "cityblock"}

Floats = NDArray[np.float64]


def ask(api: "Api", **fields: object) -> Any:
    answer = api.post("/v1/similarity", fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def expected(api: "Api", metric: str, source: list[str] = SOURCES, target: list[str] = TARGETS) -> Floats:
    """Score the vectors of /v1/embeddings with SciPy; larger is nearer."""
    data = api.post("/v1/embeddings", {"input": source + target}).json()["data"]
    vectors = np.array([item["embedding"] for item in data])
    a, b = vectors[: len(source)], vectors[len(source) :]
    if metric == "dot":
        return np.asarray(a @ b.T)
    distances = cdist(a, b, SCIPY[metric])
    return np.asarray(1 - distances if metric == "cosine" else -distances)


METRICS = ["cosine", "dot", "euclidean", "manhattan"]


@pytest.mark.parametrize("metric", METRICS)
def test_lists_give_a_matrix_with_a_row_a_source(api: "Api", metric: str) -> None:
    scores = ask(api, source=SOURCES, target=TARGETS, metric=metric)["scores"]
    np.testing.assert_allclose(scores, expected(api, metric), atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_give_a_list(api: "Api", metric: str) -> None:
    scores = ask(api, source=SOURCES, target=TARGETS[:3], metric=metric, pairwise=True)["scores"]
    np.testing.assert_allclose(scores, expected(api, metric)[:, :3].diagonal(), atol=1e-5)


OWN = {"projection": (Dense(inputs=384, outputs=24, activation="Tanh"),), "truncate_dim": 16}


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({}, ResolvedFeature(Pooling.MEAN, (6,), normalize=True, projected=24, dimensions=16)),
        ({"pooling": "mean"}, ResolvedFeature(Pooling.MEAN, (6,), normalize=True)),
        ({"layers": [-1]}, ResolvedFeature(Pooling.MEAN, (6,), normalize=True)),
        ({"exclude_special": True}, ResolvedFeature(Pooling.MEAN, (6,), normalize=True, exclude_special=True)),
        ({"granularity": "token"}, ResolvedFeature(Pooling.NONE, (6,), normalize=True)),
    ],
    ids=str,
)
def test_the_models_own_vectors_are_compared_where_no_others_are_asked_for(
    make_api: "MakeApi", fields: dict[str, object], feature: ResolvedFeature
) -> None:
    asked: list[ResolvedFeature] = []

    def answer(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        asked.extend(feature for sequence in sequences for feature in sequence.features)
        return FakeEncoder().encode(sequences)

    ask(make_api(FakeEncoder(answer), manifest=OWN), source="a ship", target="a boat", **fields)
    assert set(asked) == {feature}


def test_metric_is_the_models_own_where_none_is_given(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    """Vectors that are not normalised, whose products are no cosines."""
    api = make_api(encoder, manifest={"similarity": Metric.DOT, "normalize": False})
    scores = ask(api, source=SOURCES, target=TARGETS)["scores"]
    np.testing.assert_allclose(scores, expected(api, "dot"), rtol=1e-5)
    assert np.abs(scores - expected(api, "cosine")).min() > 0.1


def test_strings_give_a_number(api: "Api") -> None:
    scores = ask(api, source=SOURCES[0], target=TARGETS[0])["scores"]
    assert scores == pytest.approx(expected(api, "cosine")[0, 0], abs=1e-5)


def test_string_and_list_give_a_list(api: "Api") -> None:
    matrix = expected(api, "cosine")
    np.testing.assert_allclose(ask(api, source=SOURCES[0], target=TARGETS)["scores"], matrix[0], atol=1e-5)
    np.testing.assert_allclose(ask(api, source=SOURCES, target=TARGETS[1])["scores"], matrix[:, 1], atol=1e-5)


def test_lists_of_one_are_lists(api: "Api") -> None:
    assert np.shape(ask(api, source=["a"], target=["b"])["scores"]) == (1, 1)
    assert np.shape(ask(api, source="a", target=["b"])["scores"]) == (1,)
    assert np.shape(ask(api, source=["a"], target="b")["scores"]) == (1,)
    assert np.shape(ask(api, source=["a"], target=["b"], pairwise=True)["scores"]) == (1,)
    assert np.shape(ask(api, source="a", target="b", pairwise=True)["scores"]) == ()


@pytest.mark.parametrize(("top_k", "given"), [(1, 1), (3, 3), (4, 4), (99, 4)])
def test_top_k_gives_the_nearest_first(api: "Api", top_k: int, given: int) -> None:
    reply = ask(api, source=SOURCES, target=TARGETS, top_k=top_k)
    assert "scores" not in reply
    for row, matches in zip(expected(api, "cosine"), reply["matches"], strict=True):
        assert [match["index"] for match in matches] == np.argsort(-row)[:given].tolist()
        np.testing.assert_allclose([match["score"] for match in matches], np.sort(row)[::-1][:given], atol=1e-5)


def test_top_k_of_a_string_is_one_list(api: "Api") -> None:
    [match] = ask(api, source=SOURCES[0], target=TARGETS, top_k=1)["matches"]
    assert match["index"] == 0


def test_text_is_nearest_to_itself_in_every_metric(api: "Api") -> None:
    for metric in METRICS:
        matches = ask(api, source=SOURCES, target=SOURCES, metric=metric, top_k=1)["matches"]
        assert [match["index"] for [match] in matches] == [0, 1, 2]


def test_usage_counts_both_sides(api: "Api") -> None:
    reply = ask(api, source="hello", target=["hello", "hello world"])
    assert reply["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    assert reply["model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_large_matrices_are_right_too(api: "Api") -> None:
    sources, targets = [f"ship {number}" for number in range(60)], [f"{number} boats" for number in range(60)]
    scores = ask(api, source=sources, target=targets)["scores"]
    np.testing.assert_allclose(scores, expected(api, "cosine", sources, targets), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"source": ["a"] * 1025, "target": ["b"] * 1023}, None),
        ({"source": ["a"] * 1025, "target": ["b"] * 1024}, "source"),  # 2,049 texts
    ],
    ids=["within", "beyond"],
)
def test_caps(api: "Api", fields: dict[str, object], param: str | None) -> None:
    answer = api.post("/v1/similarity", fields | {"top_k": 1})
    if param is None:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("truncate", ["end", "start"])
def test_truncate_is_honoured(api: "Api", truncate: str) -> None:
    long = "ship " * 254 + "tide " * 254
    near = ask(api, source=long, target=["ship " * 254, "tide " * 254], truncate=truncate)["scores"]
    assert near[0 if truncate == "end" else 1] == pytest.approx(1, abs=1e-5)
    assert near[1 if truncate == "end" else 0] < 0.99


def test_default_prompt_stands_before_all_that_is_compared(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    api = make_api(encoder, manifest={"prompts": {"query": "query: "}, "default_prompt_name": "query"})
    texts = ["a ship in harbour", "a boat at its berth"]
    data = api.post("/v1/embeddings", {"input": texts}).json()["data"]
    first, second = (np.array(item["embedding"]) for item in data)
    pair = {"source": texts[0], "target": texts[1]}
    assert api.post("/v1/similarity", pair).json()["scores"] == pytest.approx(first @ second, abs=1e-6)
    bare = api.post("/v1/similarity", {**pair, "prompt_name": ""}).json()["scores"]
    assert abs(bare - first @ second) > 1e-3
    [item] = api.post("/v1/features", {"inputs": texts[:1], "include_tokens": True}).json()["data"]
    assert [(token["start"], token["end"]) for token in item["tokens"]][:5] == [(0, 0), (0, 0), (0, 0), (0, 1), (2, 6)]


def test_empty_text_is_refused_though_a_prompt_stands_before_it(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    api = make_api(encoder, manifest={"prompts": {"query": "query: "}, "default_prompt_name": "query"})
    assert api.post("/v1/embeddings", {"input": ""}).status_code == 400
