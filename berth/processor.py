"""Whether the processor adds products of int8 in 32 bits, and how many bits the weights therefore have."""

import platform
from pathlib import Path

from berth.artifact import WeightBits

CPUINFO = Path("/proc/cpuinfo")
X86 = ("x86_64", "amd64", "i686", "i386")
VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Linux' names of what adds four products of u8 and s8 to 32 bits; Intel's tiles do, too."""

Flags = frozenset[str]


def flags_of(cpuinfo: str) -> Flags | None:
    """Read the first processor's flags off the text of /proc/cpuinfo; None where it lists none, as on ARM."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split()) or None
    return None


def read_flags(path: Path = CPUINFO) -> Flags | None:
    """Read this processor's flags; None where the system does not tell them so, as macOS and Windows do not."""
    try:
        return flags_of(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def has_vnni(flags: Flags | None, machine: str) -> bool | None:
    """Say whether an x86 processor has VNNI; None where that is not known, or the processor is none of x86."""
    if machine.lower() not in X86 or flags is None:
        return None
    return bool(flags & VNNI)


def fastest_weight_bits(flags: Flags | None, machine: str) -> tuple[WeightBits, str]:
    """Choose the bits of int8's weights for a processor, and say why.

    8 are nearer to float32. On x86 without VNNI they need kernels that are exact and slower, and 7 do not.
    """
    match has_vnni(flags, machine):
        case True:
            return 8, "this processor has VNNI"
        case False:
            return 7, "this processor has no VNNI"
    if machine.lower() in X86:
        return 8, "this system does not say whether the processor has VNNI"
    return 8, f"the kernels of {machine or 'this processor'} need no VNNI"


def weight_bits_here() -> tuple[WeightBits, str]:
    """Choose the bits of int8's weights for this machine, and say why."""
    return fastest_weight_bits(read_flags(), platform.machine())


def vnni_here() -> bool | None:
    """Say whether this machine's processor has VNNI; None where that is not known, or it is none of x86."""
    return has_vnni(read_flags(), platform.machine())
