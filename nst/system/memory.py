"""The peak of this process's memory; loads no torch."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from nst.system.quota import read_text


def peak_rss() -> int | None:
    """Return this process's peak resident memory in bytes; None where the system hides it."""
    if sys.platform == "linux":
        # Not ru_maxrss: a new program starts with the peak of the process that started it.
        match = re.search(r"^VmHWM:\s*(\d+) kB", read_text(Path("/proc/self/status")), re.M)
        return int(match[1]) * 1024 if match else None
    elif sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    else:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
