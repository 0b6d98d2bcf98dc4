"""One candidate of `nst bench`, alone in its process: JSON lines in, JSON lines out."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from nst.infer.runtime.stylizer import Stylizer


class Runner:
    """A stylizer that answers the requests of `nst.infer.diagnostics.bench`."""

    def __init__(self) -> None:
        self._stylizer: Stylizer | None = None
        self._before = 0

    def open(self, model: str, provider: Any, threads: int) -> dict[str, Any]:
        self._before = peak_memory() or 0
        self._stylizer = Stylizer(model, provider=provider, threads=threads)
        return {
            "name": self._stylizer.name,
            "provider": self._stylizer.provider,
            "metadata": self._stylizer.metadata,
            "notes": self._stylizer.notes,
        }

    def run(
        self, size: tuple[int, int], batch: int, repetitions: int, seconds: float
    ) -> dict[str, Any]:
        """Repaint up to `repetitions` times, no more than twice once `seconds` are over."""
        assert self._stylizer is not None
        images = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
        times: list[float] = []
        # The first call may be slow out of turn: algorithms are searched, engines built.
        while len(times) < repetitions and (len(times) < 2 or sum(times) < seconds):
            start = time.perf_counter()
            self._stylizer(images)
            times.append(time.perf_counter() - start)
        peak = peak_memory()
        return {"seconds": times, "memory": None if peak is None else peak - self._before}


def peak_memory() -> int | None:
    """Bytes resident at this process's peak; None where it can't be told."""
    try:
        # Not ru_maxrss on Linux: a child inherits its parent's there, torch and all.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Answer requests until the other end closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent decides
    # Native libraries print to the standard output: it becomes the standard error for them.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        runner = Runner()
        for line in sys.stdin:
            request: dict[str, Any] = json.loads(line)
            action = runner.open if request.pop("do") == "open" else runner.run
            try:
                answer = action(**request)
            except Exception as error:  # whatever it is, the parent reports it in a row
                answer = {"error": str(error) or type(error).__name__}
            answers.write(f"{json.dumps(answer)}\n")
            answers.flush()


if __name__ == "__main__":
    main()
