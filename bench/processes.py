"""What a tree of processes uses, from Linux' /proc, and on which core it runs."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used so far, and MiB of memory that is and was at most resident."""

    cpu_seconds: float
    rss: float
    peak_rss: float
    anonymous: float


def usage(root: int) -> Usage:
    """Add up a process and its descendants; a process that ends meanwhile is left out."""
    cpu, memory = 0.0, dict.fromkeys(("VmRSS", "VmHWM", "RssAnon"), 0)
    for pid in tree(root):
        try:
            fields = _stat(pid)
            status = (PROC / str(pid) / "status").read_text()
        except OSError:
            continue
        cpu += (int(fields[11]) + int(fields[12])) / TICKS  # utime, stime
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in memory:
                memory[name] += int(value.split()[0])
    mib = {name: value / 1024 for name, value in memory.items()}
    return Usage(cpu, mib["VmRSS"], mib["VmHWM"], mib["RssAnon"])


def tree(root: int) -> list[int]:
    """List a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except OSError:
                continue
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """Read a process' fields that follow its name: state, parent and so on."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def cores(count: int = 1) -> tuple[set[int], set[int]]:
    """Share the cores out: the first for the client, the last so many for the server; the client's too if need be."""
    available = sorted(os.sched_getaffinity(0))
    return {available[0]}, set(available[-count:])


def pin_tree(cores: set[int], root: int) -> None:
    """Keep every thread of a process and of its descendants on some cores."""
    for pid in tree(root):
        pin(cores, pid)


def pin(cores: set[int], pid: int = 0) -> None:
    """Keep every thread of a process on some cores; 0 is this process."""
    with suppress(OSError):  # a process that has ended
        for task in (PROC / str(pid or os.getpid()) / "task").iterdir():
            with suppress(OSError):  # a thread that has ended
                os.sched_setaffinity(int(task.name), cores)
