"""What is made of the samples."""

import pytest

from bench.memory import report_of
from bench.processes import Usage


def samples(*anonymous: float) -> list[Usage]:
    return [Usage(0, 0, 300 + each, each) for each in anonymous]


def test_growth_is_from_the_first_tenth_to_the_last() -> None:
    report = report_of("berth", 20, 7, samples(*range(100, 200)))
    assert report.anonymous_first_mib == 104.5
    assert report.anonymous_last_mib == 194.5
    assert report.anonymous_growth_percent == pytest.approx(86.12, abs=0.01)
    assert report.anonymous_greatest_mib == 199
    assert report.peak_rss_mib == 499
    assert report.anonymous_mib[0] == 100
    assert report.anonymous_mib[-1] == 199
    assert len(report.anonymous_mib) == 11


def test_one_high_sample_is_no_growth() -> None:
    level = [100.0] * 100
    level[-3] = 150
    report = report_of("berth", 20, 7, samples(*level))
    assert report.anonymous_growth_percent == 0
    assert report.anonymous_greatest_mib == 150
