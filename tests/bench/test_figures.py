"""The arithmetic of windows, percentiles and ratios."""

import math
from itertools import permutations

import pytest

from bench.figures import Span, Window, median_of, percentile, ratio_of_medians

WINDOW = Window(10, 20)


@pytest.mark.parametrize(
    ("span", "share"),
    [
        (Span(11, 12), 1),
        (Span(8, 12), 0.5),
        (Span(18, 26), 0.25),
        (Span(5, 25), 0.5),
        (Span(1, 2), 0),
        (Span(20, 21), 0),
        (Span(12, 12), 1),
        (Span(9, 9), 0),
    ],
)
def test_share_is_the_part_of_the_way_inside(span: Span, share: float) -> None:
    assert WINDOW.share(span) == share


def test_rate_of_a_closed_loop_does_not_depend_on_where_the_window_lies() -> None:
    """Requests of 7 seconds, one after the other: 1/7 a second, though two or none may end in a window of 10."""
    for offset in range(8):
        spans = [Span(start, start + 7) for start in range(offset - 14, 40, 7)]
        assert WINDOW.rate(spans) == pytest.approx(1 / 7)


def test_latencies_are_of_requests_that_ended_inside() -> None:
    assert WINDOW.latencies([Span(8, 10), Span(8, 9.9), Span(15, 19), Span(15, 20)]) == [2, 4]


def test_requests_that_were_due_inside_count_however_late_they_ended() -> None:
    assert WINDOW.due([Span(9.9, 12), Span(10, 12), Span(19, 27), Span(20, 21)]) == [2, 8]


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2.5), (100, 4), (90, 3.7)])
def test_percentile_interpolates(percent: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == pytest.approx(value)


def test_percentile_of_one_and_of_none() -> None:
    assert percentile([7.0], 99) == 7
    assert math.isnan(percentile([], 50))


def test_rounds_without_a_figure_do_not_count_wherever_they_stand() -> None:
    assert {median_of(rounds) for rounds in permutations([1.0, math.nan, 3.0, 8.0])} == {3}
    assert math.isnan(median_of([math.nan, math.nan]))
    assert math.isnan(median_of([]))


def test_ratio_of_medians_ignores_an_outlier() -> None:
    assert ratio_of_medians([10, 12, 900], [4, 6, 0.1]) == 3
    assert math.isnan(ratio_of_medians([], [1]))
    assert math.isnan(ratio_of_medians([1], [0]))
    assert math.isnan(ratio_of_medians([1], [math.nan]))
    assert ratio_of_medians([math.nan, 6], [4, math.nan, 2]) == 2
