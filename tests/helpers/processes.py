"""Processes that tests start, and Ctrl-C for them and for the tests themselves."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def ctrl_c_enabled() -> Iterator[None]:
    """Give SIGINT Python's handler, here and in processes that are started meanwhile.

    Below `nohup` or in a script's background it is ignored, and every new process inherits that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start(command: Sequence[object], **options: Any) -> subprocess.Popen[str]:
    """Start a process with text streams that Ctrl-C (SIGINT) ends; see `subprocess.Popen`."""
    with ctrl_c_enabled():
        return subprocess.Popen([str(word) for word in command], text=True, **options)
