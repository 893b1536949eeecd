"""What became of a soak, and whether it was borne."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from bench.figures import percentile

MAX_GROWTH = 0.02
MAX_UNSENT = 0.01
"""The part of the requests that may be left unsent: with more of them it was not that load that was borne."""


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of the requests, and what the service used meanwhile."""

    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    checked: int = 0
    wrong: int = 0
    left: int = 0
    due: int = 0
    unsent: int = 0
    memory: list[float] = field(default_factory=list)
    """MiB of anonymous memory, a sample a second."""

    @property
    def sound(self) -> bool:
        """Whether every request had the status it must have, and some answers were looked at and right."""
        return not self.unexpected and self.checked > 0 and not self.wrong

    @property
    def growth(self) -> float:
        """Memory's growth once it has settled, as a part of what it was."""
        before, after = settled(self.memory)
        return after / before - 1

    def is_borne(self, files: int) -> bool:
        """Say whether the load was offered, was answered rightly, and left neither memory nor descriptors behind."""
        return self.sound and self.unsent <= MAX_UNSENT * self.due and self.growth < MAX_GROWTH and files <= 0

    def rows(self, files: int) -> list[list[str]]:
        """Say what came of it, a line a figure."""
        before, after = settled(self.memory)
        return [
            ["requests answered", str(self.statuses.total())],
            ["clients that left", str(self.left)],
            ["not sent, for too many were on the way", f"{self.unsent} of {self.due}"],
            ["p50 / p99, ms", " / ".join(f"{percentile(self.seconds, each) * 1e3:.1f}" for each in (50, 99))],
            ["answers checked, wrong", f"{self.checked}, {self.wrong}"],
            ["statuses", told(self.statuses)],
            ["unexpected", told(self.unexpected)],
            ["anonymous memory, MiB", f"{before:.1f} to {after:.1f}: {self.growth:+.2%}"],
            ["MiB, a twelfth of the time each", " ".join(f"{part:.0f}" for part in parts(self.memory, 12))],
            ["descriptors left open", str(files)],
        ]


def settled(memory: list[float]) -> tuple[float, float]:
    """Give the memory after a sixth of the samples and at the end, each the median of a tenth of what follows."""
    after = memory[len(memory) // 6 :]
    part = max(1, len(after) // 10)
    return median(after[:part]), median(after[-part:])


def parts(memory: list[float], count: int) -> list[float]:
    """Give the medians of so many equal parts, the first of them the warm-up's."""
    size = max(1, len(memory) // count)
    return [median(memory[start : start + size]) for start in range(0, len(memory) - size + 1, size)]


def told(counts: Counter[str]) -> str:
    """Write a count of each name."""
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "none"
