"""The features of the CPU, as the kernel lists them."""

from __future__ import annotations

from nst.system.cpu import parse_cpuinfo


def test_cpuinfo() -> None:
    xeon = "processor\t: 0\nmodel name\t: Xeon: 8\nflags\t\t: fpu avx2 avx512_vnni\n\n"
    assert parse_cpuinfo(xeon + xeon.replace("8", "9")) == (
        "Xeon: 8",
        {"fpu", "avx2", "avx512_vnni"},
    )
    arm = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd i8mm\nCPU part\t: 0xd40\n"
    assert parse_cpuinfo(arm) == ("", {"fp", "asimd", "i8mm"})
    assert parse_cpuinfo("") == ("", set())
