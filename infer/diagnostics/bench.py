"""Measures how fast models repaint.

Each runs in its own process, and all take turns, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nst.config import Provider, check_number
from nst.errors import NstError, UsageError
from nst.infer.diagnostics.machine import gpu_memory_used
from nst.infer.runtime.signature import SMALLEST_SIDE
from nst.io.files import Closing

ON_GPU = ("cuda", "tensorrt")


@dataclass(frozen=True)
class Candidate:
    """A model on a provider.

    Args:
        model: path of an ONNX file.
        provider: execution provider to compute with.
        reference: whether the other candidates on the same provider are compared with this one.
    """

    model: str | os.PathLike[str]
    provider: Provider = "auto"
    reference: bool = False


@dataclass(frozen=True)
class BenchConfig:
    """Options of `bench`.

    Args:
        sizes: (height, width) of the images, at least 32 each; measured from small to large.
        seconds: least time to measure each candidate at each size; a slow one takes longer.
        rounds: number of turns of each candidate; each turn has at least one call.
        warmup: calls before the measurement, fewer once `seconds` are over.
        batch: images per call.
        threads: threads of the CPU provider; 0 for one per core.
    """

    sizes: tuple[tuple[int, int], ...] = ((480, 640), (720, 1280), (1080, 1920))
    seconds: float = 2.0
    rounds: int = 5
    warmup: int = 3
    batch: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        if not self.sizes:
            raise UsageError("no size is given: name one, such as 640x480")
        for height, width in self.sizes:
            check_number("height", height, least=SMALLEST_SIDE, most=16384)
            check_number("width", width, least=SMALLEST_SIDE, most=16384)
        check_number("seconds", self.seconds, above=True)
        check_number("rounds", self.rounds, least=1)
        check_number("warm-up", self.warmup, least=1)
        check_number("batch", self.batch, least=1, most=4096)
        check_number("threads", self.threads)


@dataclass(frozen=True)
class Measurement:
    """The figures of a candidate at a size; None where it failed (see `error`).

    Attributes:
        model: title of the style, or name of the file.
        path: path of the file; empty if it is gone.
        preset, precision: from the file's metadata, or empty.
        provider: provider in use, or the requested one if it does not load.
        size: (height, width) in pixels.
        batch: images per call.
        milliseconds, p95: median and 95th percentile over the calls, for one image.
        fps: images per second, from the median.
        n: number of calls measured, after the warm-up.
        gmac: 10⁹ multiply-accumulates for one image, from the file's `macs_per_pixel` at 640×480;
            the command counts them on the graph instead, if onnx is installed.
        memory: MiB that opening the model and repainting added to the process's peak resident
            memory. Sizes rise, so the peak belongs to this size.
        gpu_memory: MiB by which nvidia-smi's total rose during the candidate's opening and
            warm-ups; other processes on the GPUs count, too.
        speedup: median of the reference divided by this median, in the same run.
        reference: whether the others are compared with this candidate.
        notes: a line for each provider that `auto` tried before and that failed.
        error: reason why there are no figures; empty if there are.
    """

    model: str
    path: str
    preset: str
    precision: str
    provider: str
    size: tuple[int, int]
    batch: int
    milliseconds: float | None = None
    p95: float | None = None
    fps: float | None = None
    n: int = 0
    gmac: float | None = None
    memory: float | None = None
    gpu_memory: float | None = None
    speedup: float | None = None
    reference: bool = False
    notes: tuple[str, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, ready for JSON; the size as `height` and `width`."""
        values = asdict(self)
        height, width = values.pop("size")
        return {**values, "height": height, "width": width}


@dataclass(frozen=True)
class BenchProgress:
    """The progress of `bench`: the next step, and the share of steps done.

    Attributes:
        model: name of the next candidate's file.
        provider: its provider.
        size: its (height, width); None while the model is opened.
        done: share of steps done, 0 to 1.
    """

    model: str
    provider: str
    size: tuple[int, int] | None
    done: float


def bench(
    candidates: Sequence[Candidate],
    config: BenchConfig | None = None,
    report: Callable[[BenchProgress], None] | None = None,
) -> tuple[Measurement, ...]:
    """Measure every candidate at every size.

    A call maps uint8 to uint8, so it includes the transfers to a GPU and back. At each size all
    candidates warm up, then they take turns (A B C A B C …), so that a busy machine disturbs all
    alike. All of them stay in memory until the end.

    Args:
        candidates: models to measure.
        config: None for the defaults.
        report: called before each step.

    Returns:
        One row for each size and candidate, small sizes first. A candidate that fails has the
        reason in its row, and the others go on.
    """
    config = config or BenchConfig()
    sizes = sorted(config.sizes, key=lambda size: size[0] * size[1])
    steps = len(candidates) * (1 + len(sizes) * (1 + config.rounds))
    step = 0
    rows: list[Measurement] = []

    def announce(lane: _Lane, size: tuple[int, int] | None) -> None:
        nonlocal step
        if report is not None:
            candidate = lane.candidate
            name = Path(candidate.model).stem
            report(BenchProgress(name, candidate.provider, size, step / steps))
        step += 1

    with contextlib.ExitStack() as stack:
        lanes = [_Lane(c, config, stack.enter_context(Worker())) for c in candidates]
        for lane in lanes:
            announce(lane, None)
            lane.open()
        for size in sizes:
            for lane in lanes:
                announce(lane, size)
                lane.warm_up(size)
            for _ in range(config.rounds):
                for lane in lanes:
                    announce(lane, size)
                    lane.take_turn(size)
            rows += _compared(lanes, [lane.row(size) for lane in lanes])
    return tuple(rows)


class Worker(Closing):
    """A `bench_worker` process, which ends with the `with` block."""

    def __init__(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        # -P: keep files of the working directory from shadowing modules.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nst.infer.diagnostics.bench_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            NstError: the process has ended, with the signal or its last line of output.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise NstError(f"its process ended ({self._last_words()})")
        return json.loads(line)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a request that it never read
                pipe.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        if status < 0:
            name = signal.Signals(-status).name
            return f"{name}, is memory short?" if name == "SIGKILL" else name
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"status {status}")


@dataclass
class _Lane:
    """The state of a candidate during a run."""

    candidate: Candidate
    config: BenchConfig
    worker: Worker
    opened: dict[str, Any] = field(default_factory=dict)
    broken: bool = False  # the model did not open, or its process has ended
    error: str = ""
    times: list[float] = field(default_factory=list)
    a_turn: int = 1
    memory: float | None = None
    gpu_memory: float | None = None

    def open(self) -> None:
        with self._watch_gpu():
            answer = self._ask(
                do="open",
                model=os.fspath(self.candidate.model),
                provider=self.candidate.provider,
                threads=self.config.threads,
            )
        self.opened = answer or {}
        self.broken = answer is None

    def warm_up(self, size: tuple[int, int]) -> None:
        self.times = []
        if not self.broken:
            self.error = ""
        with self._watch_gpu():
            times = self._run(size, self.config.warmup, self.config.seconds)
        if times:
            share = self.config.seconds / self.config.rounds
            self.a_turn = math.ceil(share / min(times))  # the first call may be slower

    def take_turn(self, size: tuple[int, int]) -> None:
        self.times += self._run(size, self.a_turn, math.inf)

    def row(self, size: tuple[int, int]) -> Measurement:
        metadata = self.opened.get("metadata", {})
        row = Measurement(
            model=self.opened.get("name") or Path(self.candidate.model).stem,
            path=os.fspath(self.candidate.model),
            preset=metadata.get("preset", ""),
            precision=metadata.get("precision", ""),
            provider=self.opened.get("provider") or self.candidate.provider,
            size=size,
            batch=self.config.batch,
            gmac=_gmac(metadata.get("macs_per_pixel", ""), size),
            reference=self.candidate.reference,
            notes=tuple(self.opened.get("notes", ())),
            error=self.error,
        )
        if self.error:
            return row
        milliseconds = np.array(self.times) * 1000 / self.config.batch
        median, p95 = (float(np.percentile(milliseconds, part)) for part in (50, 95))
        return replace(
            row,
            milliseconds=median,
            p95=p95,
            fps=1000 / median,
            n=len(self.times),
            memory=self.memory,
            gpu_memory=self.gpu_memory,
        )

    def _run(self, size: tuple[int, int], repetitions: int, seconds: float) -> list[float]:
        if self.error:
            return []
        answer = self._ask(
            do="run", size=size, batch=self.config.batch, repetitions=repetitions, seconds=seconds
        )
        if answer is None:
            return []
        if answer["memory"] is not None:
            self.memory = answer["memory"] / 2**20
        return answer["seconds"]

    def _ask(self, **request: Any) -> dict[str, Any] | None:
        """Return the worker's answer, or None with the reason in `error`."""
        try:
            answer = self.worker.ask(**request)
        except NstError as error:
            self.error, self.broken = str(error), True
            return None
        self.error = answer.get("error", "")
        return None if self.error else answer

    @contextlib.contextmanager
    def _watch_gpu(self) -> Iterator[None]:
        wanted = self.opened.get("provider", self.candidate.provider) in (*ON_GPU, "auto")
        before = gpu_memory_used() if wanted else None
        yield
        if before is not None and self.opened.get("provider", ON_GPU[0]) in ON_GPU:
            self.gpu_memory = (self.gpu_memory or 0) + (gpu_memory_used() or before) - before


def _gmac(macs_per_pixel: str, size: tuple[int, int]) -> float | None:
    try:
        return float(macs_per_pixel) * size[0] * size[1] / 1e9
    except ValueError:  # a file of another maker
        return None


def _compared(lanes: list[_Lane], rows: list[Measurement]) -> Iterator[Measurement]:
    """Yield the rows of one size with their speed-ups."""
    base = {
        (lane.candidate.provider, row.provider): row.milliseconds
        for lane, row in zip(lanes, rows, strict=True)
        if row.reference and row.milliseconds
    }
    for lane, row in zip(lanes, rows, strict=True):
        reference = base.get((lane.candidate.provider, row.provider))
        if reference and row.milliseconds:
            row = replace(row, speedup=reference / row.milliseconds)
        yield row
