"""Repaints a video: decodes, repaints and encodes at once, each in its own thread."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from av.video.stream import VideoStream

from nst.config import check_number
from nst.errors import UsageError, VideoError
from nst.infer.runtime.resize import resized, scaled
from nst.infer.video.reader import AnyPacket, Frame, VideoReader
from nst.infer.video.sequence import (
    GIFWriter,
    SequenceReader,
    SequenceWriter,
    has_pattern,
    is_sequence,
    overwrites,
)
from nst.infer.video.writer import EncodeConfig, VideoWriter
from nst.io.files import same_file
from nst.io.images import Array

T = TypeVar("T")
FPS = 25.0  # frames per second of numbered images
WAITING = 6  # frames between two stages, enough for uneven work: 37 MB at 1920×1080
_RECENT = 2.0  # seconds over which the speed is measured


@runtime_checkable
class TimedStylizer(Protocol):
    """Repaints a frame, HWC uint8 RGB, that is shown at a given second of the video."""

    def at(self, image: Array, seconds: float) -> Array: ...


class FrameWriter(Protocol):
    """Takes frames, and packets of sound and subtitles, in their order."""

    def write(self, part: Frame | AnyPacket) -> None: ...


@dataclass(frozen=True)
class VideoProgress:
    """The progress of a video.

    Attributes:
        frames: number of frames written.
        frames_per_second: speed over the last two seconds.
        done: share of the video, 0 to 1; None if its length is not known.
        seconds_left: estimated time to the end; None if it is not known.
    """

    frames: int
    frames_per_second: float
    done: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class VideoResult:
    """The outcome of repainting a video.

    Attributes:
        frames: number of frames written.
        seconds: time that it took.
        shortfall: seconds of video that the source declares and does not hold.
        damaged: number of packets that could not be decoded.
        interrupted: whether Ctrl-C ended it; the file holds what was done.
        notes: a line for each stream that could not be copied, and each image that was skipped.
        encoder: name of the encoder.
    """

    frames: int
    seconds: float
    shortfall: float
    damaged: int
    interrupted: bool
    notes: tuple[str, ...]
    encoder: str


def repaint_video(
    stylize: Callable[[Array], Array] | TimedStylizer,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    size: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    warmup: float = 0.0,
    fps: float = FPS,
    extras: bool = True,
    encode: EncodeConfig | None = None,
    callback: Callable[[VideoProgress], None] | None = None,
) -> VideoResult:
    """Repaint a video; keep the source's sound, subtitles, chapters and timestamps.

    Args:
        stylize: repaints a frame, HWC uint8 RGB, and is called with the frames in their order: a
            `Stylizer`, or a `VideoStylizer`, which holds each model's frame statistics steady.
        source: a video file, a folder of numbered images, or a pattern such as `frames/%04d.png`.
        target: a video file, a GIF, or a pattern.
        size: long side of the repainted video in pixels, which may enlarge it; None for the
            source's.
        start: second of the source at which to begin.
        duration: seconds to repaint; None for the rest.
        warmup: seconds before `start` that are repainted and then left out, for a `stylize` that
            depends on earlier frames.
        fps: frames per second of numbered images.
        extras: whether sound and subtitles are copied.
        encode: how the video is encoded.
        callback: called after every frame, in another thread.

    Returns:
        The outcome. If Ctrl-C interrupted it, the file holds the frames that were done.

    Raises:
        VideoError: the source is missing or no video. UsageError: the target is the source, or an
        argument makes no sense. NstError: the target can't be written. KeyboardInterrupt: Ctrl-C
        came before the first frame.
    """
    check_target(source, target)
    if size is not None:
        check_number("size", size, least=32, most=16384)
    warmup = max(0.0, min(warmup, start))
    begun = time.monotonic()
    whole = None if duration is None else duration + warmup
    with open_source(source, fps, start - warmup, whole, extras=extras) as reader:
        sides = reader.size if size is None else scaled(reader.size, size)
        unit = reader.time_base
        warmup_ticks = round(warmup / unit)  # timestamps count from the warm-up
        with _open_target(Path(target), reader, sides, encode) as writer:

            def repaint(frame: Frame) -> Frame | None:
                pts = frame.pts - warmup_ticks
                image = resized(frame.image, sides)
                if isinstance(stylize, TimedStylizer):
                    image = stylize.at(image, float(pts * unit))
                else:
                    image = stylize(image)
                return replace(frame, image=image, pts=pts) if pts >= 0 else None

            seconds = None if reader.seconds is None else reader.seconds - warmup
            progress = _ProgressMeter(float(unit), seconds, callback)
            interrupted = run_stages(reader, repaint, writer, progress)
            if not writer.frames:  # keep a file that exists at the target
                if interrupted:
                    raise KeyboardInterrupt
                raise VideoError(f"{source} has no frame there: check start and duration")
        skipped = reader.skipped.values() if isinstance(reader, SequenceReader) else ()
        return VideoResult(
            frames=writer.frames,
            seconds=time.monotonic() - begun,
            shortfall=0.0 if interrupted else reader.shortfall,
            damaged=reader.damaged,
            interrupted=interrupted,
            notes=(*writer.notes, *skipped),
            encoder=writer.encoder,
        )


def check_target(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Raise `UsageError` if writing the target would overwrite the source."""
    if same_file(source, target) or os.fspath(source) == os.fspath(target):
        raise UsageError(f"{target} is the video to be repainted: name another file")
    if overwrites(source, target):
        raise UsageError(f"{target} would overwrite images of {source}: name another folder")


def open_source(
    source: str | os.PathLike[str],
    fps: float = FPS,
    start: float = 0.0,
    duration: float | None = None,
    *,
    extras: bool = True,
) -> VideoReader | SequenceReader:
    """Open a video file, or numbered images at `fps` frames per second."""
    if not is_sequence(source):
        return VideoReader(source, start=start, duration=duration, extras=extras)
    check_number("fps", fps, least=0.01, most=1000)
    rate = Fraction(fps).limit_denominator(1001)
    return SequenceReader(source, rate, start=start, duration=duration)


def _open_target(
    target: Path,
    reader: VideoReader | SequenceReader,
    sides: tuple[int, int],
    encode: EncodeConfig | None,
) -> VideoWriter | SequenceWriter | GIFWriter:
    if has_pattern(target):
        return SequenceWriter(target, reader.extras)
    if target.suffix.lower() == ".gif":
        return GIFWriter(target, time_base=reader.time_base, rate=reader.rate, extras=reader.extras)
    return open_writer(target, reader, sides, encode)


def open_writer(
    target: Path,
    reader: VideoReader | SequenceReader,
    size: tuple[int, int],
    encode: EncodeConfig | None = None,
    copied: VideoStream | None = None,
) -> VideoWriter:
    """Open a `VideoWriter` for a video with the timing, colours, sound and tags of `reader`."""
    return VideoWriter(
        target,
        size,
        time_base=reader.time_base,
        rate=reader.rate,
        colors=reader.colors,
        config=encode,
        pixel_aspect=reader.pixel_aspect,
        extras=reader.extras,
        metadata=reader.metadata,
        chapters=reader.chapters(),
        copied=copied,
    )


def run_stages(
    source: Iterable[Frame | AnyPacket],
    repaint: Callable[[Frame], Frame | None],
    writer: FrameWriter,
    callback: Callable[[Frame], None] = lambda _: None,
) -> bool:
    """Repaint the frames of `source` and give them to `writer`; read and write in other threads.

    Packets pass unchanged, in their place; a frame for which `repaint` returns None is left out.
    Ctrl-C ends it after the frames that are repainted; a second one ends it at once, as an error.

    Args:
        callback: called in the writer's thread after each frame.

    Returns:
        Whether Ctrl-C ended it.
    """
    stop = threading.Event()
    decoded: _StageQueue[Frame | AnyPacket] = _StageQueue(stop)
    repainted: _StageQueue[Frame | AnyPacket] = _StageQueue(stop)

    def write() -> None:
        for part in repainted:
            writer.write(part)
            if isinstance(part, Frame):
                callback(part)

    threads = [_Stage(lambda: decoded.put_all(source), stop), _Stage(write, stop)]

    def finish() -> None:
        decoded.close()
        repainted.end()
        for thread in threads:
            if thread.ident is not None:
                thread.over.wait()  # a join that Ctrl-C interrupts takes the thread for ended
                thread.join()

    interrupted = False
    try:
        try:
            for thread in threads:
                thread.start()
            for part in decoded:
                made = repaint(part) if isinstance(part, Frame) else part
                if made is not None and not repainted.put(made):
                    break
            finish()
        except KeyboardInterrupt:
            interrupted = True
            finish()
    except BaseException:
        stop.set()
        finish()
        raise
    for thread in threads:
        if thread.error is not None:
            raise thread.error
    return interrupted


class _Stage(threading.Thread):
    """A thread that keeps its error, and stops the other stages then."""

    def __init__(self, work: Callable[[], None], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self.over = threading.Event()
        self._work, self._stop_all = work, stop

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # raised by the thread that waits for this one
            self.error = error
            self._stop_all.set()
        finally:
            self.over.set()


class _StageQueue(Iterable[T]):
    """A bounded queue between two threads, either of which may leave."""

    _END = object()

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._queue: queue.Queue[T | object] = queue.Queue(WAITING)
        self._closed = threading.Event()

    def put(self, part: T | object) -> bool:
        """Wait for room and append `part`; return False if nobody takes it any more."""
        while not (self._stop.is_set() or self._closed.is_set()):
            try:
                self._queue.put(part, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def put_all(self, source: Iterable[T]) -> None:
        """Append all of `source`, then the end."""
        for part in source:
            if not self.put(part):
                return
        self.end()

    def end(self) -> None:
        """Append the end: nothing more comes."""
        self.put(self._END)

    def close(self) -> None:
        """Refuse further parts."""
        self._closed.set()

    def __iter__(self) -> Iterator[T]:
        while not self._stop.is_set():
            try:
                part = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if part is self._END:
                return
            yield part  # type: ignore[misc]


class _ProgressMeter:
    """Reports progress and speed after each frame."""

    def __init__(
        self, unit: float, whole: float | None, callback: Callable[[VideoProgress], None] | None
    ) -> None:
        self._unit, self._whole, self._callback = unit, whole, callback
        self._begun = time.monotonic()
        self._times: list[float] = []
        self._frames = 0

    def __call__(self, frame: Frame) -> None:
        now = time.monotonic()
        self._frames += 1
        self._times = [t for t in self._times if now - t < _RECENT] + [now]
        span = now - self._times[0]
        pace = (len(self._times) - 1) / span if span else 0.0
        done = left = None
        if self._whole:
            done = min(1.0, max(0.0, frame.pts * self._unit / self._whole))
            left = (now - self._begun) * (1 - done) / done if done else None
        if self._callback is not None:
            self._callback(VideoProgress(self._frames, pace, done, left))
