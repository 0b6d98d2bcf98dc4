"""What affinity and control groups leave to this process: cores and memory."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> float:
    """Cores that affinity and the container's quota leave to this process."""
    return min([float(_affinity()), *_quotas(root)])


def quota_threads(root: Path = Path("/")) -> int:
    """Threads that a container's quota has room for; 0 where it leaves all cores.

    ONNX Runtime counts cores and knows no quotas: its threads would be stopped most of the time.
    """
    cores = usable_cores(root)
    return math.ceil(cores) if cores < _affinity() else 0


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """Bytes that the control groups of this process allow."""
    for text in _cgroup_files(root, "memory", ("memory.max", "memory.limit_in_bytes")):
        if text.isdigit():
            yield int(text)


def read_text(path: Path) -> str:
    """A small file's text; empty where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Cores that the control groups of this process allow, both versions of them."""
    for text in _cgroup_files(root, "cpu", ("cpu.max",)):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    quotas = _cgroup_files(root, "cpu", ("cpu.cfs_quota_us",))
    periods = _cgroup_files(root, "cpu", ("cpu.cfs_period_us",))
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdigit() and period.isdigit():  # -1 is no quota
            yield int(quota) / int(period)


def _cgroup_files(root: Path, controller: str, names: tuple[str, ...]) -> list[str]:
    """Texts of a controller's files in this process's group and in all those above it."""
    found = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if number == "0" else controller)
        group = mount / path.strip("/")
        for folder in (group, *group.parents):
            found += [text for name in names if (text := read_text(folder / name).strip())]
            if folder == mount:
                break
    return found
