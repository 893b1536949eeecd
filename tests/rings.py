"""The rings of the suite, told by a test's file: `unit`, `service`, `slow`.

`unit` needs neither torch nor a server and takes a minute or two; `service` talks to real servers over loopback; `slow`
is the rest: parity with torch, faults, fuzz, rolling restarts, the page in a browser, clients, benchmark, the wheel.
`-m unit` collects the files of that ring only, and lets none of them import torch. An export has transformers do
without torch, for as long as the process lives: where a test is slow, torch is loaded before the first of all tests.
"""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
RINGS = ("unit", "service", "slow")

SLOW = (
    "bench/gpu",
    "bench/test_main.py",
    "bench/test_rig.py",
    "bench/test_soak.py",
    "end_to_end/page",
    "end_to_end/test_accuracy.py",
    "end_to_end/test_client_libraries.py",
    "end_to_end/test_features.py",
    "end_to_end/test_gpu.py",
    "end_to_end/test_observation.py",
    "end_to_end/test_openai_client.py",
    "end_to_end/test_rolling.py",
    "end_to_end/test_scripts.py",
    "end_to_end/test_similarity.py",
    "end_to_end/test_slow_clients.py",
    "end_to_end/test_windows.py",
    "faults",
    "fuzz",
    "model_export/graphs",
    "service/api/routes/test_bert_as_service_formulas.py",
    "test_wheel.py",
)
SERVICE = ("bench/test_server.py", "end_to_end")

AGAINST = re.compile(r"_against_\w+\.py$")
"""Files that compare with torch, transformers or sentence-transformers; they are slow, too."""

HEAVY = ("torch", "sentence_transformers")


def ring_of(path: Path) -> str:
    """Name the ring of a file, or of all files in a folder; "" for a folder that holds several."""
    inside = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    for ring, places in (("slow", SLOW), ("service", SERVICE)):
        if any(inside == place or inside.startswith(f"{place}/") for place in places):
            return ring
    if AGAINST.search(inside):
        return "slow"
    return "unit" if path.suffix == ".py" else ""


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; where only `unit` runs, have the import of what it must not need fail."""
    for ring in RINGS:
        config.addinivalue_line("markers", f"{ring}: a ring of the suite, see tests/rings.py")
    if _chosen(config) == {"unit"}:
        sys.modules.update(dict.fromkeys(HEAVY))  # type: ignore[arg-type]  # None: importing it raises


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of other rings, whose imports would be paid for."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and ring_of(collection_path) not in _chosen(config) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its ring; load torch for those that may compare with it."""
    for item in items:
        item.add_marker(ring_of(item.path))
    if any(item.get_closest_marker("slow") for item in items):
        import_module("torch")


def _chosen(config: pytest.Config) -> set[str]:
    """Give the rings that `-m` leaves, all of them where it names none."""
    expression = str(config.getoption("markexpr", ""))
    if not any(ring in expression for ring in RINGS):
        return set(RINGS)
    return {ring for ring in RINGS if eval(expression, {"__builtins__": {}}, {other: other == ring for other in RINGS})}
