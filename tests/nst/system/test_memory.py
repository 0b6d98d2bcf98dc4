"""The peak of a process's memory: its own, not that of the process which started it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from nst.system.devices import peak_memory
from nst.system.memory import peak_rss

PRINT_PEAK = "from nst.system.memory import peak_rss; print(peak_rss())"


def printed(code: str) -> int:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(peak_rss() is None, reason="this system hides the peak")
def test_the_peak_is_the_process_s_own() -> None:
    alone = printed(PRINT_PEAK)
    grown = printed(f"block = b'x' * (600 << 20); {PRINT_PEAK}")
    child = printed(
        "import subprocess, sys; block = b'x' * (600 << 20)\n"
        f"subprocess.run([sys.executable, '-c', {PRINT_PEAK!r}], check=True)"
    )
    assert 1 << 20 < alone < 200 << 20
    assert grown > 600 << 20
    assert child < alone + (100 << 20)


@pytest.mark.skipif(peak_rss() is None, reason="this system hides the peak")
def test_on_a_cpu_the_peak_is_that_of_the_process() -> None:
    peak = peak_memory(torch.device("cpu"))
    found = peak_rss()
    assert peak is not None
    assert found is not None
    assert 0.05 < peak <= found / 1e9
