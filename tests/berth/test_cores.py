"""How many cores this process may use."""

import os
from pathlib import Path

import pytest

import berth.cores
from berth.cores import available_cores, cgroup_quota


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ],
    ids=str,
)
def test_quota_is_read_from_both_versions(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cgroup_quota(write(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [(8, "max", 8), (8, "150000", 2), (8, "400000", 4), (2, "400000", 2), (4, "1000", 1)],
)
def test_the_lesser_of_affinity_and_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affinity: int, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(berth.cores, "CGROUP", write(tmp_path, {"cpu.max": f"{quota} 100000"}))
    assert available_cores() == cores


def test_this_machine_has_a_core() -> None:
    assert available_cores() >= 1
