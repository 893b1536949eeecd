"""POST /v1/similarity with poolings, layers and token matrices, against NumPy on torch's hidden states."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Twin

Floats = NDArray[np.float64]

SOURCES = ["hello world", "the quick fox, unwell", "x"]
TARGETS = ["hello world of text", "a vector!", "the quick fox", "\u4f60\u597d"]


def ids_of(twin: "Twin", text: str) -> list[int]:
    ids: list[int] = twin.torch.tokenizer(text)["input_ids"]
    return ids


def unit_rows(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def layer_sum(states: list[Floats], layers: list[int]) -> Floats:
    return np.asarray(np.sum([states[layer] for layer in layers], axis=0))


CASES: list[tuple[dict[str, Any], Any]] = [
    ({"pooling": "cls"}, lambda states: states[-1][0]),
    ({"pooling": "max", "layers": [-2]}, lambda states: states[-2].max(axis=0)),
    ({"pooling": "mean", "layers": [1, 2, -1], "merge": "sum"}, lambda states: layer_sum(states, [1, 2, -1]).mean(0)),
    ({"layers": [0, -1]}, lambda states: np.concatenate([states[0], states[-1]], axis=1).mean(axis=0)),
    (
        {"layers": [0, 1], "merge": {"weights": [2.0, -0.5]}, "exclude_special": True},
        lambda states: (2 * states[0] - 0.5 * states[1])[1:-1].mean(axis=0),
    ),
]


@pytest.mark.parametrize(("fields", "vector_of"), CASES, ids=str)
def test_matrix_is_numpys(twin: "Twin", fields: dict[str, Any], vector_of: Any) -> None:
    reply = twin.post("/v1/similarity", source=SOURCES, target=TARGETS, metric="cosine", **fields)
    a, b = (
        unit_rows(np.stack([vector_of(twin.torch.states(ids_of(twin, text))[0]) for text in texts]))
        for texts in (SOURCES, TARGETS)
    )
    np.testing.assert_allclose(reply["scores"], a @ b.T, rtol=0, atol=1e-5)


def test_vectors_are_normalised_as_the_model_says(minilm_twice: "Twin", tiny: "Twin") -> None:
    """The default model normalises, the tiny one does not."""
    for twin, normalised in ((minilm_twice, True), (tiny, False)):
        score = twin.post("/v1/similarity", source="hello", target="world", metric="dot", pooling="cls")["scores"]
        a, b = (twin.torch.states(ids_of(twin, text))[0][-1][0] for text in ("hello", "world"))
        assert score == pytest.approx(float(unit_rows(a) @ unit_rows(b) if normalised else a @ b), abs=1e-4)


@pytest.mark.parametrize(
    ("truncate", "kept"),
    [
        ("end", lambda body, room: body[:room]),
        ("start", lambda body, room: body[-room:]),
        ("middle", lambda body, room: body[: -(-room // 4)] + body[len(body) - room + -(-room // 4) :]),
        ({"head": 3}, lambda body, room: body[:3] + body[3 - room :]),
    ],
    ids=["end", "start", "middle", "head"],
)
def test_truncate_is_that_of_features(twin: "Twin", truncate: Any, kept: Any) -> None:
    text = "hello world of the quick fox " * 60
    first, *body, last = ids_of(twin, text)
    a = twin.torch.states([first, *kept(body, twin.max_tokens - 2), last])[0][-1].mean(axis=0)
    b = twin.torch.states(ids_of(twin, "world"))[0][-1].mean(axis=0)
    reply = twin.post("/v1/similarity", source=text, target="world", metric="cosine", truncate=truncate)
    assert reply["scores"] == pytest.approx(float(unit_rows(a) @ unit_rows(b)), abs=1e-5)


METRICS: dict[str, Any] = {
    "cosine": lambda a, b: unit_rows(a) @ unit_rows(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -np.linalg.norm(a[:, None] - b, axis=2),
    "manhattan": lambda a, b: -np.abs(a[:, None] - b).sum(axis=2),
}


@pytest.mark.parametrize("metric", METRICS)
def test_tokens_are_compared_one_by_one(tiny: "Twin", metric: str) -> None:
    source, target = "the quick fox", "cafe\u0301 \U0001f600 of text!"
    reply = tiny.post("/v1/similarity", source=source, target=target, granularity="token", metric=metric, layers=[2])
    a, b = (tiny.torch.states(ids_of(tiny, text))[0][2] for text in (source, target))
    matrix = METRICS[metric](a, b)
    np.testing.assert_allclose(reply["scores"], matrix, rtol=1e-5, atol=1e-4)
    assert reply["max_sim"] == pytest.approx(float(matrix.max(axis=1).sum()), rel=1e-5)
    for side, text in (("source", source), ("target", target)):
        encoding = tiny.torch.tokenizer(text, return_offsets_mapping=True)
        table = reply[f"{side}_tokens"]
        assert [token["id"] for token in table] == encoding["input_ids"]
        assert [(token["start"], token["end"]) for token in table] == encoding["offset_mapping"]


def test_long_texts_are_cut_to_compare_their_tokens(tiny: "Twin") -> None:
    long = {"source": "hello " * 60, "target": "world", "granularity": "token"}
    assert np.shape(tiny.post("/v1/similarity", **long)["scores"]) == (40, 3)
    answer = tiny.http.post("/v1/similarity", json={**long, "truncate": {"window": 20}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "truncate")


def test_tables_name_the_rows_and_columns_where_special_tokens_are_left_out(tiny: "Twin") -> None:
    reply = tiny.post("/v1/similarity", source="hello world", target="text", granularity="token", exclude_special=True)
    assert np.shape(reply["scores"]) == (len(reply["source_tokens"]), len(reply["target_tokens"])) == (2, 1)
