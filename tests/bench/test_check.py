"""Wrong answers are found."""

import numpy as np
import orjson
import pytest

from bench.check import Check, Sample, check, cosines
from bench.dialects import DIALECTS, Dialect
from bench.workloads import SHAPES, Workload

VECTORS = np.eye(3, 4, dtype=np.float32)
WORKLOAD = Workload(SHAPES["w1"], ["a", "b", "c"])
TEI = DIALECTS["tei"]


def checked(*answers: tuple[int, bytes], dialect: Dialect = TEI) -> Check:
    sample = Sample(10)
    for answer in answers:
        sample.offer(*answer)
    return check(WORKLOAD, sample, dialect, lambda places: VECTORS[list(places)], lowest=0.999)


def answer(*rows: int) -> bytes:
    return orjson.dumps([VECTORS[row].tolist() for row in rows])


def test_right_answers_are_right() -> None:
    assert checked((0, answer(0)), (2, answer(2))) == Check(texts=2, lowest=1.0, wrong=0)


def test_another_texts_vector_is_wrong() -> None:
    assert checked((0, answer(0)), (1, answer(2))).wrong == 1


@pytest.mark.parametrize(("scale", "wrong"), [(1.02, 0), (0.9, 1), (1.1, 1), (7.0, 1)])
def test_a_vector_of_another_length_is_wrong_where_it_is_to_be_the_models(scale: float, wrong: int) -> None:
    """Its cosine is 1."""
    vector = (VECTORS[0] * scale).tolist()
    said = {
        "openai": {"data": [{"index": 0, "embedding": vector}]},
        "tei": [vector],
        "bert-as-service": {"result": [vector]},
    }
    found = {name: checked((0, orjson.dumps(answer)), dialect=DIALECTS[name]).wrong for name, answer in said.items()}
    assert found == {"openai": wrong, "tei": 0, "bert-as-service": 0}


def test_too_many_vectors_are_wrong() -> None:
    assert checked((0, answer(0, 1))).wrong == 1


def test_what_is_not_an_answer_is_wrong() -> None:
    found = checked((0, b'{"error": "no"}'))
    assert found.wrong == 1


def test_what_is_not_json_is_wrong_and_told() -> None:
    found = checked((0, b"<html>"))
    assert found.wrong == 1
    assert found.unreadable


def test_not_a_number_is_a_cosine_of_zero() -> None:
    assert cosines(np.full((1, 4), np.nan, dtype=np.float32), VECTORS[:1]).tolist() == [0]


def test_a_sample_is_drawn_from_all() -> None:
    sample = Sample(50)
    for number in range(5000):
        sample.offer(number, b"")
    numbers = [number for number, _ in sample.kept]
    assert len(set(numbers)) == 50
    assert 1000 < sum(numbers) / 50 < 4000


def test_dialects_read_what_they_ask_for() -> None:
    rows = [[1.0, 2.0], [3.0, 4.0]]
    out_of_order = {"data": [{"index": 1, "embedding": rows[1]}, {"index": 0, "embedding": rows[0]}]}
    for name, said in (("openai", out_of_order), ("tei", rows), ("bert-as-service", {"result": rows})):
        assert DIALECTS[name].read(orjson.dumps(said)).tolist() == rows
    assert orjson.loads(DIALECTS["openai"].ask(["a"], None)) == {"input": ["a"]}
    assert orjson.loads(DIALECTS["openai"].ask(["a"], "m")) == {"input": ["a"], "model": "m"}
