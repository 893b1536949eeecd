"""How many tokens a key may still have encoded: a token bucket."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from berth.errors import RateLimitError, TooLargeError


class RateLimit:
    """Holds at most a minute's tokens, all of them at first, and fills up at their rate (RFC 2697's bucket)."""

    def __init__(self, tokens_per_minute: float, now: Callable[[], float] = time.monotonic) -> None:
        self._most = self._left = tokens_per_minute
        self._now = now
        self._filled = now()

    def check(self) -> None:
        """Raise `RateLimitError` where nothing is left, so that no such request costs its reading."""
        self._want(1)

    def take(self, tokens: int) -> None:
        """Take tokens out; raises `RateLimitError` where there are too few now, `TooLargeError` where always."""
        if tokens > self._most:
            most = int(self._most)
            raise TooLargeError("", f"the request has {tokens} tokens, the key may have {most} encoded in a minute")
        self._want(tokens)
        self._left -= tokens

    def _want(self, tokens: int) -> None:
        now = self._now()
        self._left = min(self._most, self._left + (now - self._filled) * self._most / 60)
        self._filled = now
        missing = min(tokens, self._most) - self._left
        if missing > 0:
            message = f"the key has used up its {int(self._most)} tokens a minute, try again later"
            raise RateLimitError(message, missing * 60 / self._most)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who shows a key, or one of several with the same label."""

    label: str
    rate_limit: RateLimit | None
