"""How many cores this process may use: what its affinity and its cgroup leave of the machine's."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MOST_CORES = 8192
"""More than Linux numbers. It takes of an affinity what there is; `os.cpu_count()` does not tell the highest number."""


def available_cores(shared_by: int = 1) -> int:
    """Count the cores of this process, at least 1; a cgroup's quota of 1.5 cores counts as 2.

    Several processes that share them have as many whole cores each as there are for all.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(CGROUP)
    return max(1, (min(affinity, math.ceil(quota)) if quota else affinity) // shared_by)


def on_one_core() -> bool:
    """Tell whether all threads of this process have to share one core, and none may run on another."""
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1


@contextmanager
def every_core() -> Iterator[None]:
    """Let this thread, if it is kept on one core, run on all that its cgroup leaves it, while the body lasts."""
    if not on_one_core():
        yield
        return
    own = os.sched_getaffinity(0)
    with suppress(OSError):  # where that is forbidden it stays where it is
        os.sched_setaffinity(0, range(MOST_CORES))
    try:
        yield
    finally:
        with suppress(OSError):  # forbidden, too, or its core is no longer the cgroup's
            os.sched_setaffinity(0, own)


def cgroup_quota(root: Path) -> float | None:
    """Read the CPU quota in cores, from cgroup v2's `cpu.max` or v1's `cpu.cfs_quota_us`; None where there is none.

    A container sees its own cgroup at the root of the mount, so no path is looked up.
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    cores = float(quota) / float(period) if quota.strip() != "max" else -1.0
    return cores if cores > 0 else None
