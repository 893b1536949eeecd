"""What is made of an overload's times."""

import math

import pytest

from bench.check import Check
from bench.overload import Outcome, Report, report_of
from bench.processes import Usage

CHECKED = Check(texts=3, lowest=0.9999, wrong=0)


def report(outcome: Outcome, *memory: Usage) -> Report:
    before, after = memory or (None, None)
    return report_of(outcome, CHECKED, peak=200.0, rate=2000.0, seconds=10.0, memory=(before, after))


def test_goodput_is_of_what_was_answered_in_time() -> None:
    of = report(Outcome(accepted=[0.1] * 1900, in_time=1800))
    assert (of.accepted, of.goodput_texts_per_second, of.goodput_of_peak) == (1900, 180, 0.9)
    assert (of.peak_texts_per_second, of.offered_per_second) == (200, 2000)


def test_times_are_told_in_milliseconds() -> None:
    of = report(Outcome(accepted=[1.0, 3.0], refused=[0.002, 0.05, 0.051, 0.001], late=[0.0, 0.1]))
    assert [of.accepted_p50_ms, of.accepted_p99_ms] == pytest.approx([2000, 2980])
    assert [of.refused, of.refused_p50_ms, of.refused_within_50_ms] == pytest.approx([4, 26, 0.75])
    assert of.client_late_p99_ms == pytest.approx(99)


def test_what_was_not_there_has_no_figure() -> None:
    of = report(Outcome())
    assert math.isnan(of.accepted_p50_ms)
    assert math.isnan(of.refused_p99_ms)
    assert of.refused_within_50_ms == 0
    assert (of.rss_before_mib, of.rss_after_mib, of.anonymous_growth_mib) == (None, None, None)


def test_the_rest_is_as_it_was_counted() -> None:
    of = report(Outcome(others={"HTTP 500": 2}, unsent=7), Usage(1, 300, 310, 200), Usage(9, 330, 340, 225.5))
    assert (of.others, of.unsent) == ({"HTTP 500": 2}, 7)
    assert (of.checked_texts, of.lowest_cosine) == (3, 0.9999)
    assert (of.rss_before_mib, of.rss_after_mib, of.anonymous_growth_mib) == (300, 330, 25.5)
