"""Measure how fast `nst video` and the live loop are, and whether their memory grows.

    python docs/bench/video.py throughput VIDEO MODEL … [--frames 300]
    python docs/bench/video.py latency VIDEO MODEL …
    python docs/bench/video.py soak MODEL [--frames 10000]

`throughput` compares `nst video` with its parts alone and with a plain loop of OpenCV, at 640×480
and 1280×720, in medians of three rounds. At best the parts overlap to the longest of repainting
alone, of decoding and encoding alone, and of their processor time divided by the number of cores.
`latency` plays VIDEO at 30 frames a second to the live loop for 20 seconds and takes the age of
each frame when it is shown. `soak` sends many frames through the live loop and through `nst video`.

Prints a Markdown table: frames a second, ages in milliseconds, or memory, open files and threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from nst.infer.live.camera import Captured
from nst.infer.live.webcam import WebcamConfig, run_webcam
from nst.infer.runtime.resize import resized
from nst.infer.runtime.stylizer import Stylizer
from nst.infer.video.colors import Colors
from nst.infer.video.pipeline import VideoProgress, repaint_video
from nst.infer.video.reader import Frame, VideoReader
from nst.infer.video.schedule import VideoStyle, VideoStylizer
from nst.infer.video.temporal import TemporalStylizer
from nst.infer.video.writer import EncodeConfig, VideoWriter
from nst.io.images import Array

SIZES_WH = ((640, 480), (1280, 720))
RATE = 30


def frames_of(source: Path, size_wh: tuple[int, int], most: int) -> Iterator[Array]:
    """Yield `most` frames of a video, which begins again if it is shorter."""
    made = 0
    while made < most:
        with VideoReader(source) as reader:
            for part in reader:
                if isinstance(part, Frame) and made < most:
                    made += 1
                    yield resized(part.image, size_wh[::-1])


def write(path: Path, frames: Iterator[Array], size_wh: tuple[int, int]) -> None:
    """Encode frames as a video."""
    with VideoWriter(
        path,
        size_wh[::-1],
        time_base=Fraction(1, RATE),
        rate=Fraction(RATE),
        colors=Colors(1, 1),
        config=EncodeConfig(crf=18),
    ) as writer:
        for number, image in enumerate(frames):
            writer.write(Frame(image, number, 1))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds by the clock, and those of all processors."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def naive(source: Path, target: Path, stylizer: Stylizer) -> None:
    """Repaint frame after frame; OpenCV encodes MPEG-4 and drops the sound."""
    capture = cv2.VideoCapture(str(source))
    size_wh = tuple(int(capture.get(k)) for k in (3, 4))
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), RATE, size_wh)
    while True:
        there, image = capture.read()
        if not there:
            break
        painted = stylizer(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        writer.write(cv2.cvtColor(painted, cv2.COLOR_RGB2BGR))
    writer.release()
    capture.release()


def race(model: Path, clip: Path, images: list[Array], folder: Path) -> list[float]:
    """Return the medians of three rounds.

    Seconds of repainting alone, of decoding and encoding alone, at best, and of `nst video`; at
    best divided by the last; seconds of OpenCV's loop, and these divided by those of `nst video`.
    """
    with Stylizer(model) as stylizer, VideoStylizer(VideoStyle(((model, 0.0),))) as painter:
        for image in images[:10]:
            stylizer(image)
        rows = []
        for _ in range(3):  # in turns: the machine's speed varies
            steady = TemporalStylizer(stylizer)
            alone = timed(lambda steady=steady: [steady(image) for image in images])
            coded = timed(lambda: repaint_video(lambda x: x, clip, folder / "a.mp4"))
            whole, _ = timed(lambda: repaint_video(painter, clip, folder / "b.mp4"))
            loop, _ = timed(lambda: naive(clip, folder / "c.mp4", stylizer))
            best = max(alone[0], coded[0], (alone[1] + coded[1]) / (os.cpu_count() or 1))
            rows.append((alone[0], coded[0], best, whole, best / whole, loop, loop / whole))
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def throughput(source: Path, models: list[Path], frames: int, folder: Path) -> None:
    """Print frames a second."""
    print(
        "| model | size | repainting alone | decoding and encoding alone | at best | nst video "
        "| of that | OpenCV loop | times |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for size_wh in SIZES_WH:
        clip = folder / "source.mp4"
        images = list(frames_of(source, size_wh, frames))
        write(clip, iter(images), size_wh)
        for model in models:
            alone, coded, best, whole, share, loop, times = race(model, clip, images, folder)
            fps = " | ".join(f"{frames / seconds:.1f}" for seconds in (alone, coded, best, whole))
            print(
                f"| {model.stem} | {size_wh[0]}×{size_wh[1]} | {fps} | {share:.0%} | "
                f"{frames / loop:.1f} | {times:.2f} |",
                flush=True,
            )


class Source:
    """A camera of 30 frames a second, or of as many as the loop takes."""

    rate, ended, away = float(RATE), False, False

    def __init__(self, images: list[Array], count: int, *, paced: bool) -> None:
        self._images, self._count, self._paced = images, count, paced
        self._number = 0
        self._begun = time.monotonic()
        self._seen = -1
        self.stamps: list[float] = []

    def newest(self, timeout: float) -> Captured | None:
        if self._paced:
            number = int((time.monotonic() - self._begun) * RATE)
            if number == self._seen:
                time.sleep(
                    min(timeout, max(0, (number + 1) / RATE + self._begun - time.monotonic()))
                )
                number = int((time.monotonic() - self._begun) * RATE)
            if number == self._seen:
                return None
            stamp = self._begun + number / RATE
        else:
            number, stamp = self._seen + 1, time.monotonic()
        if number >= self._count:
            self.ended = True
            return None
        self._seen = number
        self.stamps.append(stamp)
        return Captured(self._images[number % len(self._images)], stamp, number + 1)


class Screen:
    """Records the time at which each frame is shown."""

    closed = False

    def __init__(self) -> None:
        self.times: list[float] = []

    def show(self, _: Array) -> None:
        self.times.append(time.monotonic())

    def key(self) -> str | None:
        return None

    def full_screen(self, _: bool) -> None:
        pass


class TimedStyle:
    """A style that records how long each frame takes."""

    name, keep_color = "timed", None

    def __init__(self, stylizer: Stylizer) -> None:
        self._steady = TemporalStylizer(stylizer)
        self.times: list[float] = []

    def __call__(self, image: Array, strength: float = 1.0) -> Array:
        begun = time.monotonic()
        painted = self._steady(image, strength)
        self.times.append(time.monotonic() - begun)
        return painted


def latency(source: Path, models: list[Path]) -> None:
    """Print the age of frames in the live loop."""
    print(
        "| model | the network, ms | shown | of | age: median, ms | 99th percentile | most "
        "| a period and the network |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    images = list(frames_of(source, SIZES_WH[0], 60))
    for model in models:
        with Stylizer(model) as stylizer:
            style = TimedStyle(stylizer)
            style(images[0])
            camera, screen = Source(images, RATE * 20, paced=True), Screen()
            result = run_webcam([style], camera, screen, WebcamConfig())
            ages = 1000 * (np.array(screen.times) - np.array(camera.stamps))
            network = 1000 * statistics.median(style.times)
            print(
                f"| {model.stem} | {network:.1f} | {result.frames} | {RATE * 20} | "
                f"{np.median(ages):.1f} | {np.percentile(ages, 99):.1f} | {ages.max():.1f} | "
                f"{network + 1000 / RATE:.1f} |",
                flush=True,
            )


def state() -> tuple[float, int, int]:
    """Return the megabytes in use, and the numbers of open files and of threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files, threading.active_count()


def soak(model: Path, frames: int, folder: Path) -> None:
    """Print memory, open files and threads over many frames."""
    rng = np.random.default_rng(0)
    images = [
        cv2.blur(rng.integers(0, 256, (240, 320, 3)), (9, 9)).astype(np.uint8) for _ in range(30)
    ]
    marks: list[tuple[int, tuple[float, int, int]]] = []
    print("| loop | frames | MB after a tenth | at the end | change | open files | threads |")
    print("|---|---:|---:|---:|---:|---|---|")

    def report(name: str, before: tuple[float, int, int], after: tuple[float, int, int]) -> None:
        first, last = marks[0][1][0], marks[-1][1][0]
        print(
            f"| {name} | {frames} | {first:.1f} | {last:.1f} | {last / first - 1:+.1%} | "
            f"{before[1]} before, {after[1]} after | {before[2]}, {after[2]} |",
            flush=True,
        )

    with Stylizer(model) as stylizer:
        stylizer(images[0])
        before = state()

        class Marks(Screen):
            def show(self, image: Array) -> None:
                super().show(image)
                if len(self.times) % (frames // 10) == 0:
                    marks.append((len(self.times), state()))

        camera = Source(images, frames, paced=False)
        run_webcam([TemporalStylizer(stylizer, stabilize=True)], camera, Marks(), WebcamConfig())
        report("live", before, state())
    clip = folder / "source.mp4"
    write(clip, (images[k % 30] for k in range(frames)), (320, 240))
    marks.clear()
    before = state()
    with VideoStylizer(VideoStyle(((model, 0.0),), stabilize=True)) as painter:

        def mark(progress: VideoProgress) -> None:
            number = progress.frames
            if number % (frames // 10) == 0:
                marks.append((number, state()))

        repaint_video(painter, clip, folder / "b.mp4", callback=mark)
    report("file", before, state())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("throughput", "latency", "soak"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--frames", type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if args.what == "throughput":
            throughput(args.paths[0], args.paths[1:], args.frames or 300, Path(name))
        elif args.what == "latency":
            latency(args.paths[0], args.paths[1:])
        else:
            soak(args.paths[0], args.frames or 10_000, Path(name))
