"""The CPU's name and its instruction sets.

psutil reports neither, and py-cpuinfo is unmaintained and runs generated machine code to find them.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import subprocess
import sys
from pathlib import Path

from nst.system.quota import read_text

# Instruction sets that speed up convolutions and 8-bit arithmetic: x86 first, then Arm.
FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)


def read_cpu() -> tuple[str, set[str]]:
    """Return the CPU's name and all its feature flags; empty where unknown."""
    name, features = "", set[str]()
    if sys.platform == "linux":
        name, features = parse_cpuinfo(read_text(Path("/proc/cpuinfo")))
    elif sys.platform == "darwin":
        name = sysctl("machdep.cpu.brand_string")
        features = set(sysctl("machdep.cpu.features", "machdep.cpu.leaf7_features").lower().split())
        arm = {"I8MM": "i8mm", "BF16": "bf16", "DotProd": "asimddp", "FP16": "asimdhp"}
        features |= {arm[key] for key in arm if sysctl(f"hw.optional.arm.FEAT_{key}") == "1"}
    elif sys.platform == "win32":
        import winreg

        path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
            name = str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        present = {40: "avx2", 41: "avx512f"}  # PF_AVX2…, PF_AVX512F_INSTRUCTIONS_AVAILABLE
        test = ctypes.windll.kernel32.IsProcessorFeaturePresent
        features = {present[number] for number in present if test(number)}
    return name, features


def parse_cpuinfo(text: str) -> tuple[str, set[str]]:
    """Return the name and the feature flags of the first CPU in the text of /proc/cpuinfo."""
    fields = dict(re.findall(r"^([^\t:]+?)\s*: *(.*)$", text.partition("\n\n")[0], re.M))
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", "").strip(), set(flags.split())


def sysctl(*names: str) -> str:
    """Return macOS's values of `names`, separated by spaces; empty if one is unknown."""
    return " ".join(output(["sysctl", "-n", *names]).split())


def output(command: list[str]) -> str:
    """Return a program's standard output; empty if it is missing, fails or takes over 10 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
