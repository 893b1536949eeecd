"""What a processor's flags say of the bits of int8's weights."""

import platform
from pathlib import Path

import pytest

from berth import processor
from berth.processor import Flags, fastest_weight_bits, flags_of, has_vnni, read_flags, vnni_here, weight_bits_here

ZEN_3 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: fpu vme sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 bmi2 erms vaes vpclmulqdq rdpid
bugs\t\t: sysret_ss_attrs null_seg
vmx flags\t: vnmi

processor\t: 1
flags\t\t: fpu vme sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 bmi2 erms vaes vpclmulqdq rdpid
"""
SKYLAKE_SERVER = "flags\t\t: fpu sse2 ssse3 fma avx2 avx512f avx512dq avx512cd avx512bw avx512vl pku ospke\n"
ZEN_4 = "flags\t\t: fpu sse2 avx2 avx512f avx512bw avx512vl avx512_bf16 avx512_vbmi2 avx512_vnni avx512_bitalg\n"
ALDER_LAKE = "flags\t\t: fpu sse2 fma avx2 bmi2 sha_ni avx_vnni umip pku gfni vaes serialize arch_lbr\n"
SAPPHIRE_RAPIDS = "flags\t\t: avx2 avx512f avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8\n"
GRAVITON_3 = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp i8mm bf16
CPU implementer\t: 0x41
"""


def test_flags_are_those_of_the_line_of_that_name() -> None:
    flags = flags_of(ZEN_3)
    assert flags is not None
    assert {"fpu", "avx2", "rdpid"} <= flags
    assert not {"flags", "vnmi", ":", ""} & flags


@pytest.mark.parametrize("text", ["", GRAVITON_3, "processor\t: 0\nvmx flags\t: vnmi\n", "flags", "flags\t: \n"])
def test_what_lists_no_flags_has_none(text: str) -> None:
    assert flags_of(text) is None


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [(ZEN_3, False), (SKYLAKE_SERVER, False), (ZEN_4, True), (ALDER_LAKE, True), (SAPPHIRE_RAPIDS, True)],
    ids=["Zen 3", "Skylake", "Zen 4", "Alder Lake", "Sapphire Rapids"],
)
def test_x86_has_vnni_or_not(cpuinfo: str, expected: bool) -> None:
    flags = flags_of(cpuinfo)
    assert has_vnni(flags, "x86_64") is expected
    bits, reason = fastest_weight_bits(flags, "x86_64")
    assert (bits, reason) == ((8, "this processor has VNNI") if expected else (7, "this processor has no VNNI"))


@pytest.mark.parametrize(
    ("flags", "machine", "reason"),
    [
        (None, "x86_64", "this system does not say whether the processor has VNNI"),  # macOS
        (None, "AMD64", "this system does not say whether the processor has VNNI"),  # Windows
        (flags_of(GRAVITON_3), "aarch64", "the kernels of aarch64 need no VNNI"),
        (None, "arm64", "the kernels of arm64 need no VNNI"),
        (frozenset({"fpu"}), "ppc64le", "the kernels of ppc64le need no VNNI"),
        (None, "", "the kernels of this processor need no VNNI"),
    ],
)
def test_elsewhere_8_bits_are_chosen_and_the_reason_given(flags: Flags | None, machine: str, reason: str) -> None:
    assert has_vnni(flags, machine) is None
    assert fastest_weight_bits(flags, machine) == (8, reason)


def test_flags_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_bytes(b"model name\t: \xff\n" + ZEN_4.encode())
    assert read_flags(tmp_path / "cpuinfo") == flags_of(ZEN_4)


def test_without_the_file_nothing_is_known(tmp_path: Path) -> None:
    assert read_flags(tmp_path / "cpuinfo") is None
    assert read_flags(tmp_path) is None, "a folder cannot be read"


@pytest.mark.parametrize(("cpuinfo", "bits"), [(ZEN_3, 7), (ZEN_4, 8)], ids=["Zen 3", "Zen 4"])
def test_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch, cpuinfo: str, bits: int) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(processor, "read_flags", lambda: flags_of(cpuinfo))
    assert weight_bits_here()[0] == bits
    assert vnni_here() is (bits == 8)
