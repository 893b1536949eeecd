"""What is made of the rounds of short requests and bulk."""

import math
from dataclasses import replace

import pytest

from bench.fairness import CLOSED_HEAD, OPEN_HEAD, Report, Times, row_of, tables, times_of

REPORT = Report(
    server="a peer",
    alone=Times(1.0, 2.0, 3.0),
    crowded=Times(4.0, 5.0, 6.0),
    crowded_requests=7,
    bulk_alone_rate=8.0,
    bulk_rate=9.0,
    batch_ms=None,
    closed=Times(11.0, 12.0, 13.0),
    closed_rate=14.0,
    closed_bulk_rate=15.0,
    closed_bulk_share=16.0,
)


def test_a_row_is_of_the_rounds_that_have_a_figure() -> None:
    nan = math.nan
    rounds = [replace(REPORT, crowded=Times(4.0, 5.0, value)) for value in (8.0, nan, 4.0, nan, 2.0)]
    name, *figures = row_of(rounds)
    assert name == "a peer"
    assert figures[:9] == [1, 2, 3, 4, 5, 4.0, 7, 8, 9]
    assert math.isnan(float(figures[9])), "nobody told the batches"
    assert figures[10:] == [11, 12, 13, 14, 15, 16]


def test_each_figure_is_below_its_head() -> None:
    lines = tables([[replace(REPORT, server="berth", batch_ms=10.0)], [REPORT]]).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    opened, closed = rows[2], rows[6]
    assert (len(opened), len(closed)) == (len(OPEN_HEAD), len(CLOSED_HEAD))
    assert [float(figure) for figure in opened[1:]] == [*range(1, 11)]
    assert [float(figure) for figure in closed[1:]] == [*range(11, 17)]
    assert rows[-1] == ["w1", "1.000"], "the peer's p99 is the same"


def test_times_are_percentiles_in_milliseconds() -> None:
    times = times_of([value / 1000 for value in range(101)])
    assert (times.p50, times.p95, times.p99) == pytest.approx((50, 95, 99))
