"""A key's tokens a minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import RateLimitError, TooLargeError
from service.api.rate_limit import RateLimit


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_minute_of_tokens_is_there_at_first_and_comes_back_at_its_rate() -> None:
    clock = Clock()
    rate_limit = RateLimit(600, clock)
    rate_limit.take(600)
    with pytest.raises(RateLimitError) as refused:
        rate_limit.take(50)
    assert refused.value.retry_after == pytest.approx(5)
    with pytest.raises(RateLimitError):
        rate_limit.check()
    clock.now += 4.9
    with pytest.raises(RateLimitError):
        rate_limit.take(50)
    clock.now += 0.1
    rate_limit.take(50)


def test_no_more_than_a_minute_is_saved_up() -> None:
    clock = Clock()
    rate_limit = RateLimit(600, clock)
    clock.now += 3600
    rate_limit.take(600)
    with pytest.raises(RateLimitError):
        rate_limit.take(1)


def test_request_that_can_never_pass_is_told_so() -> None:
    rate_limit = RateLimit(600.5, Clock())
    with pytest.raises(TooLargeError, match="601 tokens, the key may have 600 encoded in a minute"):
        rate_limit.take(601)
    rate_limit.take(600)


def test_what_is_refused_costs_nothing() -> None:
    rate_limit = RateLimit(100, Clock())
    rate_limit.take(60)
    for _ in range(10):
        with pytest.raises(RateLimitError):
            rate_limit.take(50)
    rate_limit.take(40)


def test_rate_below_a_token_a_minute_lets_one_through_after_it_has_come() -> None:
    """Such a key is refused everything, in words, and nothing fails."""
    clock = Clock()
    rate_limit = RateLimit(0.5, clock)
    rate_limit.check()
    with pytest.raises(TooLargeError):
        rate_limit.take(1)


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 30)), max_size=60))
def test_never_more_than_the_rate_and_one_minute(requests: list[tuple[int, float]]) -> None:
    clock = Clock()
    rate_limit, taken = RateLimit(120, clock), 0
    for tokens, pause in requests:
        clock.now += pause
        try:
            rate_limit.take(tokens)
        except (RateLimitError, TooLargeError):
            continue
        taken += tokens
        assert taken <= 120 + (clock.now - 1000) * 2 + 1e-6
