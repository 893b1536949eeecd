"""How many cores this process may use."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

import service.cores
from service.cores import available_cores, cgroup_quota, every_core, on_one_core


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
    monkeypatch.setattr(service.cores, "CGROUP", write(tmp_path, {"cpu.max": f"{quota} 100000"}))
    assert available_cores() == cores


def test_this_machine_has_a_core() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize(("processes", "each"), [(1, 7), (2, 3), (7, 1), (9, 1)])
def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: int, each: int) -> None:
    monkeypatch.setattr("service.cores.CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    assert available_cores(processes) == each


@pytest.mark.parametrize(("cores", "one"), [({5}, True), ({0, 1}, False)])
def test_a_process_is_on_one_core_where_it_may_use_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: set[int], one: bool
) -> None:
    """A quota of one core leaves the threads on as many as there are, and stops them all when it is used up."""
    monkeypatch.setattr(service.cores, "CGROUP", write(tmp_path, {"cpu.max": "100000 100000"}))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert on_one_core() is one


class Affinity:
    """A thread's, as Linux keeps it: what is set is cut to the cores there are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: set[int], *, denied: bool = False) -> None:
        self.cores = cores
        self._denied = denied
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(self.cores), raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", self._set, raising=False)

    def _set(self, _: int, cores: Iterable[int]) -> None:
        if self._denied:
            raise PermissionError
        self.cores = {96, 97} & set(cores)


@pytest.mark.parametrize(
    ("cores", "denied", "within"), [({97}, False, {96, 97}), ({97}, True, {97}), ({3, 4}, False, {3, 4})]
)
def test_one_core_is_left_for_a_while_where_that_may_be(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], denied: bool, within: set[int]
) -> None:
    affinity = Affinity(monkeypatch, cores, denied=denied)
    with every_core():
        assert affinity.cores == within
    assert affinity.cores == cores
