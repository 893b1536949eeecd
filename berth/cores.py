"""How many cores this process may use: what its affinity and its cgroup leave of the machine's."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Count the cores of this process, at least 1; a cgroup's quota of 1.5 cores counts as 2."""
    return max(1, math.ceil(core_limit()))


def core_limit() -> float:
    """Give the seconds of CPU time that this process may use in a second."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(CGROUP)
    return min(affinity, quota or affinity)


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
