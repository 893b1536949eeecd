"""What is made of the rounds of short requests and bulk."""

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.curve import Point, curve
from bench.fairness import CLOSED, LARGE_REQUEST, OPEN, Report, Times, median_over, points, tables, times_of

REPORT = Report(
    server="a peer",
    alone=Times(1.0, 2.0, 3.0),
    crowded=Times(4.0, 5.0, 6.0),
    crowded_requests=7,
    bulk_alone_rate=8.0,
    bulk_rate=4.0,
    batch_ms=None,
    closed=Times(11.0, 12.0, 13.0),
    closed_rate=14.0,
    closed_bulk_rate=2.0,
)
MEASURED = replace(REPORT, server="berth", batch_ms=10.0, large_alone_seconds=8.0, large_seconds=20.0)


def test_a_figure_is_of_the_rounds_that_have_one() -> None:
    nan = math.nan
    rounds = [replace(REPORT, crowded=Times(4.0, 5.0, value)) for value in (8.0, nan, 4.0, nan, 2.0)]
    assert median_over(rounds, OPEN["crowded p99"]) == 4.0
    assert math.isnan(median_over(rounds, OPEN["batch ms"])), "nobody told the batches"
    assert median_over([REPORT, MEASURED], OPEN["batch ms"]) == 10.0
    assert median_over([MEASURED, REPORT], LARGE_REQUEST["÷ alone"]) == 2.5


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    rounds = [replace(REPORT, bulk_alone_rate=alone, bulk_rate=rate) for alone, rate in ((10, 9), (100, 50), (1, 0.2))]
    assert median_over(rounds, OPEN["bulk ÷ alone"]) == 0.5


def test_each_figure_is_below_its_head() -> None:
    lines = tables([[MEASURED], [REPORT]]).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    opened, closed, large = (dict(zip(rows[place], rows[place + 2], strict=True)) for place in (0, 4, 8))
    assert list(opened) == ["server", *OPEN]
    assert (opened["p95 ÷ alone"], opened["p99 above alone, batches"], opened["bulk ÷ alone"]) == (
        "2.500",
        "0.300",
        "0.500",
    )
    assert (closed["short p50 ms"], closed["p99"], closed["bulk ÷ alone"]) == ("11.00", "13.00", "0.250")
    assert (large["alone s"], large["÷ alone"]) == ("8.000", "2.500")
    assert rows[11] == ["a peer", "-", "-", "-"]
    assert rows[-1] == ["w1", "1.000"], "the peer's p99 is the same"
    assert list(closed) == ["server", *CLOSED]


def test_the_dial_is_drawn_over_bulks_rate() -> None:
    servers = [
        [replace(MEASURED, closed_bulk_rate=rate, closed=Times(1, 2, p99))] for rate, p99 in ((1.6, 10), (6.4, 80))
    ]
    assert points([0, 0.9], servers) == [Point("0", 0.2, 10), Point("0.9", 0.8, 80)]
    picture = ElementTree.fromstring(curve(points([0, 0.9], servers)))
    circles = list(picture.iter("{http://www.w3.org/2000/svg}circle"))
    (x0, y0), (x1, y1) = ((float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in circles)
    assert x0 < x1
    assert y0 > y1, "SVG's y grows downwards"
    bounds = [float(picture.attrib[name]) for name in ("width", "height")]
    assert all(0 < x < bounds[0] and 0 < y < bounds[1] for x, y in ((x0, y0), (x1, y1)))


def test_times_are_percentiles_in_milliseconds() -> None:
    times = times_of([value / 1000 for value in range(101)])
    assert (times.p50, times.p95, times.p99) == pytest.approx((50, 95, 99))
