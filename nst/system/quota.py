"""The CPU cores and the memory that affinity and control groups leave to this process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> float:
    """Return how many cores affinity and the container's quota leave to this process."""
    return min([float(_affinity()), *_quotas(root)])


def quota_threads(root: Path = Path("/")) -> int:
    """Return how many threads a container's quota has room for; 0 if it leaves all cores.

    ONNX Runtime starts a thread per core and ignores quotas, which then stop it most of the time.
    """
    cores = usable_cores(root)
    return math.ceil(cores) if cores < _affinity() else 0


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """Yield the memory limits of this process's control groups, in bytes."""
    for text in _cgroup_files(root, "memory", ("memory.max", "memory.limit_in_bytes")):
        if text.isdigit():
            yield int(text)


def read_text(path: Path) -> str:
    """Return a small file's text; empty if it can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _affinity() -> int:
    import psutil  # here, to keep the commands' start fast

    affinity = getattr(psutil.Process(), "cpu_affinity", None)  # absent on macOS
    return len(affinity()) if affinity else os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quotas of this process's control groups (version 2, then 1), in cores."""
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
    """Return the texts of a controller's files in this process's group and its ancestors."""
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
