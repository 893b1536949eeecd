"""The wall clock jumps: no deadline, no queue and no answer knows of it."""

import ast
from pathlib import Path

from tests.end_to_end.conftest import Faulty
from tests.faults.conftest import Load, Readiness, Right

ROOT = Path(__file__).parents[2]
DAY = 86_400.0
JUMPS = (DAY, -DAY, 3650 * DAY, -10_000 * DAY, 0.0)
"""Seconds from the true time."""
YEARS_APART = 13_650 // 366
"""The two farthest of them, on whatever day of a year."""


def test_jumps_of_the_clock_change_nothing(faulty: Faulty, right: Right) -> None:
    service = faulty.start("--request-timeout", "30")
    with Readiness(service) as ready, Load(service, right) as load:
        load.until_answered(20)
        for jump in JUMPS:
            faulty.clock.write_text(str(jump))
            load.until_answered(50)
    assert load.outcomes.keys() == {200}
    assert not load.wrong
    assert set(ready.said) == {200}
    years = [int(line[:4]) for line in service.log.splitlines() if " berth.requests: " in line]
    assert max(years) - min(years) >= YEARS_APART, "the service saw the clock jump"
    assert service.metric("berth_encoder_stalls_total") == 0
    assert service.stop() == 0


def wall_clocks(path: Path) -> list[str]:
    """List the places in a module where the wall clock is read."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and (getattr(node.value, "id", ""), node.attr) in {("time", "time"), ("datetime", "now"), ("time", "time_ns")}
    ]


def test_service_reads_no_wall_clock() -> None:
    modules = {*(ROOT / "service").rglob("*.py"), *(ROOT / "berth").rglob("*.py")}
    modules -= {ROOT / "service" / "api" / "tracing.py"}  # a span says when it was; how long it took is measured
    assert modules
    assert not [place for path in modules for place in wall_clocks(path)]
