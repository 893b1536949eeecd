"""The arithmetic of a run: what of it lies in the window, percentiles, medians of rounds and their ratios."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Span:
    """One request's time on the way, in seconds of one clock."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a run that counts."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Give its length."""
        return self.end - self.start

    def share(self, span: Span) -> float:
        """Say how much of a request's time on the way lies inside, from 0 to 1.

        Requests counted by this share give an unbiased rate even where a window holds only a few slow ones.
        """
        inside = min(span.end, self.end) - max(span.start, self.start)
        if inside < 0 or span.end <= span.start:
            return float(self.start <= span.end < self.end) if span.end <= span.start else 0.0
        return inside / (span.end - span.start)

    def rate(self, spans: Sequence[Span]) -> float:
        """Give the requests per second."""
        return sum(map(self.share, spans)) / self.seconds

    def due(self, spans: Sequence[Span]) -> list[float]:
        """Give the seconds of each request that began inside, however late it ended."""
        return [span.end - span.start for span in spans if self.start <= span.start < self.end]

    def latencies(self, spans: Sequence[Span]) -> list[float]:
        """Give the seconds of each request that was answered inside."""
        return [span.end - span.start for span in spans if self.start <= span.end < self.end]


def percentile(values: Sequence[float], percent: float) -> float:
    """Give a percentile, interpolated between neighbours; NaN where there are no values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median_of(rounds: Iterable[float]) -> float:
    """Give the median of the rounds that have a figure; NaN where none has, for NaN has no place in an order."""
    figures = [figure for figure in rounds if not math.isnan(figure)]
    return median(figures) if figures else math.nan


def ratio_of_medians(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Divide the median of some rounds by the median of others; NaN where either is missing."""
    below = median_of(theirs)
    return median_of(ours) / below if below else math.nan
