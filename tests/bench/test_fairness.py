"""What is made of a short request's times."""

import math
from dataclasses import replace

from bench.fairness import Report, overlapping, row_of
from bench.figures import Span, Window

REPORT = Report(
    server="a peer",
    alone_p50_ms=1.0,
    alone_p99_ms=2.0,
    crowded_p50_ms=3.0,
    crowded_p99_ms=4.0,
    crowded_requests=5,
    bulk_texts_per_second=6.0,
    batch_ms=None,
    p99_in_batches=None,
)


def test_requests_that_were_on_the_way_in_the_window_count_whole() -> None:
    spans = [Span(1, 9), Span(9, 12), Span(12, 13), Span(19, 27), Span(5, 25), Span(20, 21)]
    assert overlapping(Window(10, 20), spans) == [3, 1, 8, 20]


def test_a_row_is_of_the_rounds_that_have_a_figure() -> None:
    nan = math.nan
    rounds = [replace(REPORT, crowded_p99_ms=value) for value in (8.0, nan, 4.0, nan, 2.0)]
    name, *figures = row_of(rounds)
    assert name == "a peer"
    assert figures[:6] == [1.0, 2.0, 3.0, 4.0, 5, 6.0]
    assert all(math.isnan(float(figure)) for figure in figures[6:]), "nobody told the batches"
