"""How fast models repaint: each in a process of its own, all of them in turn on a noisy machine."""

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

ON_GPU = ("cuda", "tensorrt")


@dataclass(frozen=True)
class Candidate:
    """A model on a provider.

    Args:
        model: path of an ONNX file.
        provider: where to compute.
        reference: whether the others on the same provider are compared with it.
    """

    model: str | os.PathLike[str]
    provider: Provider = "auto"
    reference: bool = False


@dataclass(frozen=True)
class BenchConfig:
    """Options of `bench`.

    Args:
        sizes: (height, width) of the images, at least 32 each; measured from small to large.
        seconds: to measure each candidate at each size, at least; a slow one takes longer.
        rounds: how often all candidates take turns; each has at least one call a round.
        warmup: calls before, fewer once `seconds` are over.
        batch: images a call.
        threads: of the CPU provider; 0 for one a core.
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
    """A candidate at a size. Figures are None where there are none: see `error`.

    Attributes:
        model: the style's title, or the file's name; path: of the file, empty if it is gone.
        preset, precision: what the file says of itself, or empty.
        provider: the one at work; the one asked for if it does not load.
        size: (height, width); batch: images a call.
        milliseconds, p95: median and 95th percentile over the calls, for one image.
        fps: images a second, by the median.
        n: calls measured, after the warm-up.
        gmac: 10⁹ multiply-accumulates for one image, by the file's `macs_per_pixel` at 640×480; the
            command counts them on the graph instead, where onnx is installed.
        memory: MiB that opening the model and repainting added to the process's peak resident
            memory; from small to large sizes, so those below never count.
        gpu_memory: MiB that it took on the GPUs, by the change of nvidia-smi's total across the
            candidate's opening and warm-ups: of the device, so what others do there counts too.
        speedup: the reference's median divided by this one's, in the same run.
        reference: whether it is what the others are compared with.
        notes: a line for each provider that `auto` tried before and that failed.
        error: why there is no figure; empty if there is.
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
        """For JSON; the size as `height` and `width`, which nobody can mistake."""
        values = asdict(self)
        height, width = values.pop("size")
        return {**values, "height": height, "width": width}


@dataclass(frozen=True)
class BenchProgress:
    """Where a run is: what happens next, and the part that is done, 0 to 1."""

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

    A call takes uint8 in and gives uint8 back: transfers to a GPU and back are part of it. At each
    size all candidates warm up, then they take turns (A B C A B C …), so that whatever disturbs
    the machine disturbs all alike. All of them stay in memory until the end.

    Returns:
        One row for each size and candidate, small sizes first. A candidate that fails has the
        reason in its row; the others go on.
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


class Worker:
    """A `bench_worker` process; it ends with the `with` block, come what may."""

    def __init__(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        # -P: a file of the working directory must not pass for a module.
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
            NstError: the process is dead, with what is known of its death.
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
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a request that it never read
                pipe.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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
    """A candidate on its way through the sizes."""

    candidate: Candidate
    config: BenchConfig
    worker: Worker
    opened: dict[str, Any] = field(default_factory=dict)
    broken: bool = False  # for good: it did not open, or its process is dead
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
            self.a_turn = math.ceil(share / min(times))  # the first may be slow out of turn

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
        times: list[float] = answer["seconds"]
        return times

    def _ask(self, **request: Any) -> dict[str, Any] | None:
        """The answer, or None with the reason in `error`."""
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
    except ValueError:  # a file of another maker, or from before it was written
        return None


def _compared(lanes: list[_Lane], rows: list[Measurement]) -> Iterator[Measurement]:
    """The rows of one size with their speed-ups."""
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
