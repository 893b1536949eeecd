"""Whether a soak was borne."""

from collections import Counter
from typing import Any

import pytest

from bench.outcome import Outcome, parts, settled


def outcome(**fields: Any) -> Outcome:
    """Give one of a soak that was borne, but for what is given."""
    borne: dict[str, Any] = {"checked": 100, "due": 1000, "unsent": 10, "memory": [300.0] * 600}
    return Outcome(**borne | fields)


def test_memory_has_settled_after_a_sixth() -> None:
    assert settled([*range(100), *range(1000, 1500)]) == (1024.5, 1474.5)
    assert settled([7.0]) == (7.0, 7.0)


def test_one_high_sample_is_no_growth() -> None:
    assert outcome(memory=[100.0] * 598 + [900.0, 100.0]).growth == 0


def test_parts_are_medians_of_equal_times() -> None:
    assert parts([*range(10), *range(100, 110), *range(200, 210)], 3) == [4.5, 104.5, 204.5]
    assert parts([1.0, 2.0], 12) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("fields", "files", "borne"),
    [
        ({}, 0, True),
        ({}, -2, True),
        ({}, 1, False),
        ({"unsent": 11}, 0, False),
        ({"wrong": 1}, 0, False),
        ({"checked": 0}, 0, False),
        ({"unexpected": Counter({"tei: 500": 1})}, 0, False),
        ({"memory": [300.0] * 300 + [305.9] * 300}, 0, True),
        ({"memory": [300.0] * 300 + [306.0] * 300}, 0, False),
        ({"memory": [200.0] * 99 + [300.0] * 501}, 0, True),
    ],
    ids=str,
)
def test_the_verdict(fields: dict[str, Any], files: int, borne: bool) -> None:
    assert outcome(**fields).is_borne(files) is borne


def test_what_came_of_it_is_told() -> None:
    told = dict(outcome(statuses=Counter({"tei 200": 3, "bad 400": 2}), seconds=[0.01] * 5, left=4).rows(1))
    assert told["requests answered"] == "5"
    assert told["statuses"] == "bad 400: 2, tei 200: 3"
    assert told["unexpected"] == "none"
    assert told["not sent, for too many were on the way"] == "10 of 1000"
    assert told["p50 / p99, ms"] == "10.0 / 10.0"
    assert told["descriptors left open"] == "1"
