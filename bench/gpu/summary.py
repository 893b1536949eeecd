"""The short table: each of the figures that the CUDA path must reach, beside what was measured."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.table import table


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure; a rate or a share is to be at least `limit`, a time, a growth or a count at most."""

    name: str
    found: float
    limit: float
    at_least: bool = True

    @property
    def reached(self) -> bool:
        """Whether it is; a figure that is missing is not."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def goals(report: Mapping[str, Any]) -> Iterator[Goal]:
    """Read the figures off a report, of the sections that were run."""
    for line in report.get("accuracy", ()):
        limit = 0.9999 if line["built_in"] == "fp16" else 0.999999
        yield Goal(f"{line['model']} {line['precision']}: lowest cosine to torch fp32", line["lowest_cosine"], limit)
        yield Goal(f"{line['model']} {line['precision']}: vectors that are not finite", line["not_finite"], 0, False)
    for line in report.get("speed", {}).get("lines", ()):
        mean, of_torch = line["mean"], line["torch"]
        if line["mixed"] and mean == 128:
            yield Goal("share of the matrix rate, mean 128, mixed", line["share"], 0.55)
        for kind in ("padded", "sorted"):
            if mean == 128 or not line["mixed"]:
                limit = 1.2 if line["mixed"] else 1.1
                ratio = line["best"] / of_torch.get(kind, math.nan)  # torch has no rate where it failed
                yield Goal(f"berth ÷ torch {kind}, {_texts(line)}", ratio, limit)
    served = report.get("served", {})
    for load in served.get("loads", ()):
        name = load["name"]
        if load["name"].startswith("bulk"):
            yield Goal(f"{name}: ÷ encoder alone", load["tokens_per_second"] / served["alone_tokens_per_second"], 0.7)
        if load["name"] == "single":
            yield Goal(f"{name}: p50 ms", load["p50_ms"], 3, False)
        yield Goal(f"{name}: failed requests", sum(load["errors"].values()), 0, False)
    if memory := report.get("memory"):
        yield Goal("growth of memory after warm-up", memory["growth"], 0.01, False)


def write_tables(report: Mapping[str, Any]) -> str:
    """Write the speeds by length, and then the goals."""
    parts = []
    if speed := report.get("speed"):
        parts.append(
            f"{speed['model']} {speed['precision']}, matrix rate {speed['matrix_tflops']:.4g} TFLOP/s, tokens/s:"
        )
        parts.append(_speeds(speed["lines"]))
    rows = [
        [
            goal.name,
            f"{goal.found:.6g}",
            f"{'≥' if goal.at_least else '≤'} {goal.limit:g}",
            "yes" if goal.reached else "NO",
        ]
        for goal in goals(report)
    ]
    parts.append(table(["figure", "measured", "goal", "reached"], rows))
    return "\n\n".join(parts)


def _speeds(lines: Sequence[Mapping[str, Any]]) -> str:
    budgets = list(lines[0]["by_budget"])
    kinds = ["padded", "sorted", "compiled"]
    head = ["texts", *(f"budget {budget}" for budget in budgets), "share", *(f"torch {kind}" for kind in kinds)]
    rows = [
        [
            _texts(line),
            *(line["by_budget"][budget] for budget in budgets),
            line["share"],
            *(line["torch"].get(kind) for kind in kinds),
        ]
        for line in lines
    ]
    return table(head, rows)


def _texts(line: Mapping[str, Any]) -> str:
    return f"mean {line['mean']}, mixed" if line["mixed"] else f"all {line['mean']}"
