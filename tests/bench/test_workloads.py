"""The texts: of the lengths that are wanted, and the same ones each time."""

import json
from pathlib import Path
from statistics import mean, median

import numpy as np
import pytest

from bench.prose import sentences
from bench.workloads import SHAPES, Drawer, Shape, load_workload


def letters(word: str) -> int:
    """Count a word's tokens in a made-up way: one every four letters."""
    return -(-len(word) // 4)


def tokens(text: str) -> int:
    return sum(map(letters, text.split()))


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    return Drawer(sentences(), letters, 256)


def test_prose_is_prose() -> None:
    assert len(sentences()) > 300
    assert len(set(sentences())) == len(sentences())
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
def test_texts_have_the_lengths_that_were_drawn(drawer: Drawer, shape: Shape) -> None:
    texts = drawer.workload(shape).texts
    lengths = [tokens(text) + 2 for text in texts]
    assert len(texts) == shape.pool
    if shape.name == "w1":
        assert min(lengths) >= 6
        assert max(lengths) == 24
    elif shape.name == "w4":
        assert min(lengths) >= 250
        assert max(lengths) == 256
    else:
        assert median(lengths) == pytest.approx(24, abs=1.5)
        assert mean(lengths) == pytest.approx(33, abs=2.5)
        assert max(lengths) <= 256


def test_drawing_is_repeatable_and_differs_by_seed(drawer: Drawer) -> None:
    shape = SHAPES["w1"]
    assert drawer.workload(shape).texts == drawer.workload(shape).texts
    assert drawer.workload(shape).texts != drawer.workload(shape, seed=1).texts


def test_no_text_is_longer_than_the_model_reads() -> None:
    small = Drawer(sentences(), letters, 40)
    assert max(tokens(text) for text in small.workload(SHAPES["w4"]).texts) == 38


def test_requests_have_as_many_texts_as_the_shape_says(drawer: Drawer) -> None:
    workload = drawer.workload(SHAPES["w3"])
    assert {len(request) for request in workload.requests} == {64}
    assert [text for request in workload.requests for text in request] == workload.texts


def test_data_of_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "workloads.json").write_text(json.dumps({"w1": ["a", "b"]}))
    np.save(tmp_path / "ref_w1.npy", np.eye(2))
    workload = load_workload(tmp_path, SHAPES["w1"])
    assert workload.requests == [["a"], ["b"]]
    assert workload.vectors is not None
    assert workload.vectors.dtype == np.float32
