"""Runs one candidate of a benchmark in its own process, by JSON lines on its pipes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from nst.infer.runtime.stylizer import Stylizer
from nst.system.memory import peak_rss


class Runner:
    """Answers the requests of `nst.infer.diagnostics.bench` with a stylizer."""

    def __init__(self) -> None:
        self._stylizer: Stylizer | None = None
        self._before = 0

    def open(self, model: str, provider: Any, threads: int) -> dict[str, Any]:
        """Open a model and describe it."""
        self._before = peak_rss() or 0
        self._stylizer = Stylizer(model, provider=provider, threads=threads)
        described = ("name", "provider", "metadata", "notes")
        return {name: getattr(self._stylizer, name) for name in described}

    def run(
        self, size: tuple[int, int], batch: int, repetitions: int, seconds: float
    ) -> dict[str, Any]:
        """Repaint up to `repetitions` times; end after `seconds`, but not before two calls."""
        assert self._stylizer is not None
        images = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
        times: list[float] = []
        # The first call may be slower: it searches algorithms and builds engines.
        while len(times) < repetitions and (len(times) < 2 or sum(times) < seconds):
            start = time.perf_counter()
            self._stylizer(images)
            times.append(time.perf_counter() - start)
        peak = peak_rss()
        return {"seconds": times, "memory": None if peak is None else peak - self._before}


def main() -> None:
    """Answer requests until the other end closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent decides
    # Native libraries may print to the standard output: redirect it to the standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        runner = Runner()
        for line in sys.stdin:
            request: dict[str, Any] = json.loads(line)
            action = runner.open if request.pop("do") == "open" else runner.run
            try:
                answer = action(**request)
            except Exception as error:  # the parent reports it in a row
                answer = {"error": str(error) or type(error).__name__}
            answers.write(f"{json.dumps(answer)}\n")
            answers.flush()


if __name__ == "__main__":
    main()
