"""The arithmetic of a pair."""

import math
from dataclasses import replace

import pytest

from bench.pair import Round, medians, round_of
from bench.result import Result

RESULT = Result(
    label="berth",
    workload="w1",
    round=0,
    valid=True,
    requests_per_second=100.0,
    texts_per_second=120.0,
    p50_ms=1.0,
    p95_ms=1.0,
    p99_ms=1.0,
    cpu_ms_per_text=4.0,
    rss_mib=None,
    peak_rss_mib=None,
    anonymous_mib=None,
    client_cpu=0.1,
    answered=100,
    checked_texts=10,
    lowest_cosine=1.0,
    errors={},
)


def test_ratios_are_this_by_other() -> None:
    found = round_of(RESULT, replace(RESULT, label="other", texts_per_second=100.0, cpu_ms_per_text=5.0))
    assert found == Round("w1", 0, 120, 100, 250, 200, valid=True)
    assert found.row() == pytest.approx([120, 100, 1.2, 250, 200, 1.25])


def test_a_wrong_answer_of_either_makes_the_round_invalid() -> None:
    wrong = replace(RESULT, valid=False)
    assert [round_of(*pair).valid for pair in ((RESULT, wrong), (wrong, RESULT))] == [False, False]


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    rates = [(10.0, 10.0), (30.0, 20.0), (40.0, 10.0)]
    rounds = [Round("w1", number, *pair, *pair, valid=True) for number, pair in enumerate(rates)]
    assert medians(rounds) == [30, 10, 1.5, 30, 10, 1.5]


def test_a_server_without_cpu_time_has_no_ratio() -> None:
    found = round_of(replace(RESULT, cpu_ms_per_text=None), RESULT)
    assert math.isnan(found.row()[-1])
