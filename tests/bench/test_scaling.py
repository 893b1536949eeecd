"""The arithmetic of scaling, and that a wrong vector is seen."""

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from bench.model import Model, load_model
from bench.scaling import Pair, Work, agrees, cpu_ms, encode, rate


@pytest.fixture(scope="module")
def model(tiny_artifact: Path) -> Model:
    return load_model(tiny_artifact)


def test_rates_of_threads_add_up_and_cpu_time_is_shared_by_all_tokens() -> None:
    works = [Work(1000, 2.0, 1.0, [], []), Work(500, 2.5, 2.0, [], [])]
    assert rate(works, text_tokens=10) == 70
    assert cpu_ms(works, text_tokens=10) == 20


def test_longer_texts_at_the_same_rate_by_the_token_are_no_other_rate() -> None:
    """One core's texts may be longer than the other's: twice the tokens in twice the time."""
    one, two = [Work(1000, 2.0, 1.0, [], [])], [Work(2000, 4.0, 2.0, [], [])]
    assert rate(one, 33.0) == rate(two, 33.0)
    assert cpu_ms(one, 33.0) == cpu_ms(two, 33.0)


def test_twice_the_rate_at_the_same_cost_is_two() -> None:
    pair = Pair("w1", 256, 100, 185, 10, 10.5)
    assert pair.ratio == 1.85
    assert pair.cpu_ratio == pytest.approx(1.905, abs=0.001)


def test_a_thread_encodes_and_a_wrong_vector_is_seen(model: Model) -> None:
    batch = model.sequences(["a text", "of the world"])
    work = encode(model, cycle([batch]), 0)
    assert work.tokens == sum(map(len, batch))
    assert agrees(model, work, 0.999)
    assert not agrees(model, replace(work, vectors=work.vectors[::-1]), 0.999)
