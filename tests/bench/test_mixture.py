"""Which of the soak's answers are right."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from bench.mixture import Ask, _decoded_of, _embeddings_of, same_scores

VECTORS = np.array([[3, 4, 0], [0, 0, 2]], dtype=np.float32)
EMBEDDINGS = Ask("embeddings", b"", expected=VECTORS, read=_embeddings_of)
BASE64 = Ask("base64", b"", expected=VECTORS, read=_decoded_of)
SCORES = np.array([[0.9, 0.0], [-0.2, 0.4]], dtype=np.float32)
SIMILARITY = Ask("similarity", b"", expected=SCORES, read=lambda answer: answer["scores"], alike=same_scores)


def data(embeddings: Any) -> bytes:
    return json.dumps({"data": [{"embedding": each} for each in embeddings]}).encode()


def raw(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def test_right_vectors_are_right_by_each_encoding() -> None:
    assert EMBEDDINGS.is_right(data((VECTORS * 1.0001).tolist()))
    assert BASE64.is_right(data(map(raw, VECTORS)))


@pytest.mark.parametrize(
    "embeddings",
    [
        VECTORS[::-1].tolist(),
        (VECTORS * 2).tolist(),
        VECTORS[:1].tolist(),
        [[3, 4], [0, 0]],
        [[3, 4, 0], [0, 0, math.nan]],
        [[3, 4, 0], [0, 0]],
        ["3, 4, 0", "0, 0, 2"],
        [],
    ],
    ids=["of another text", "longer", "too few", "narrower", "NaN", "ragged", "strings", "none"],
)
def test_other_vectors_are_wrong(embeddings: Any) -> None:
    assert not EMBEDDINGS.is_right(data(embeddings))


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[]", b"null", b"{}", b'{"data": 3}', b'{"data": [{}]}'])
def test_an_answer_that_cannot_be_read_is_wrong(body: bytes) -> None:
    assert not EMBEDDINGS.is_right(body)


@pytest.mark.parametrize("text", ["AAA", "AAAA", 3, None])
def test_base64_that_is_none_is_wrong(text: object) -> None:
    assert not BASE64.is_right(data([text, raw(VECTORS[1])]))


@pytest.mark.parametrize(
    ("scores", "right"),
    [
        (SCORES, True),
        (SCORES + 5e-4, True),
        (SCORES * 1.01, False),
        (SCORES.T, False),
        (SCORES[0], False),
        (SCORES * math.nan, False),
    ],
    ids=["right", "rounded", "times a factor", "turned", "a row", "NaN"],
)
def test_scores_are_compared_as_numbers(scores: Any, right: bool) -> None:
    assert SIMILARITY.is_right(json.dumps({"scores": scores.tolist()}).encode()) is right
