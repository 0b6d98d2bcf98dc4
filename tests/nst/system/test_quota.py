"""The CPU time that a control group leaves to a process."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from nst.system.quota import quota_threads, usable_cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (  # the strictest group on the way up counts
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "25000 100000",
                "sys/fs/cgroup/cpu.max": "90000 100000",
            },
            0.25,
        ),
        (  # in a container the path is the host's, and the mount shows the group itself
            {
                "proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "75000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0.75,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_a_containers_quota(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    expected = len(os.sched_getaffinity(0)) if cores is None else cores
    root = write(tmp_path, files)
    assert usable_cores(root) == expected
    all_of_them = expected == len(os.sched_getaffinity(0))
    assert quota_threads(root) == (0 if all_of_them else math.ceil(expected))
