"""A video file repainted: decoding, repainting and encoding at once, each in its own thread."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from nst import color
from nst.config import KeepColor, check_number
from nst.errors import UsageError, VideoError
from nst.files import same_file
from nst.images import Array
from nst.infer.encode import EncodeConfig, VideoWriter
from nst.infer.frames import AnyPacket, Frame, VideoReader
from nst.infer.resize import resized, scaled

T = TypeVar("T")
WAITING = 6  # frames between two stages, enough for uneven work: 37 MB at 1920×1080
_RECENT = 2.0  # seconds over which the pace is measured


class Sink(Protocol):
    """Where frames go."""

    def write(self, part: Frame | AnyPacket) -> None: ...


@dataclass(frozen=True)
class VideoProgress:
    """How far a video is.

    Attributes:
        frames: written; frames_per_second: of late.
        done: share of the video, 0 to 1; None where its length is not known.
        seconds_left: estimated; None likewise.
    """

    frames: int
    frames_per_second: float
    done: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class VideoResult:
    """What became of a video.

    Attributes:
        frames: repainted; seconds: that it took.
        shortfall: seconds of the video that its file promises and does not hold.
        damaged: packets that could not be decoded.
        interrupted: whether Ctrl-C ended it; the file holds what was done.
        notes: a line for each stream that could not be copied.
        encoder: that made the video.
    """

    frames: int
    seconds: float
    shortfall: float
    damaged: int
    interrupted: bool
    notes: tuple[str, ...]
    encoder: str


def repaint_video(
    stylize: Callable[[Array], Array],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    size: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    keep_color: KeepColor | None = None,
    encode: EncodeConfig | None = None,
    callback: Callable[[VideoProgress], None] | None = None,
) -> VideoResult:
    """Repaint a video file; sound, subtitles, chapters and timestamps are those of the source.

    Args:
        stylize: HWC uint8 RGB to the same; a `Stylizer`.
        size: long side of the repainted video in pixels, even if it is larger; None for the
            source's.
        start, duration: seconds of the source; None for all the rest.
        keep_color: how to give each frame its own colours back; see `nst.color.keep_color`.
        callback: called after every frame.

    Raises:
        VideoError: the source is missing or no video. UsageError: the target is the source, an
        option makes no sense. NstError: the target can't be written.
    """
    if same_file(source, target):
        raise UsageError(f"{target} is the video to be repainted: name another file")
    if size is not None:
        check_number("size", size, least=32, most=16384)
    begun = time.monotonic()
    with VideoReader(source, start=start, duration=duration) as reader:
        sides = reader.size if size is None else scaled(reader.size, size)
        with VideoWriter(
            Path(target),
            sides,
            time_base=reader.time_base,
            rate=reader.rate,
            colors=reader.colors,
            config=encode,
            pixel_aspect=reader.pixel_aspect,
            extras=reader.extras,
            metadata=reader.metadata,
            chapters=reader.chapters(),
        ) as writer:

            def paint(image: Array) -> Array:
                image = resized(image, sides)
                stylized = stylize(image)
                if keep_color is None:
                    return stylized
                return color.keep_color(stylized, image, keep_color)

            pace = _Pace(float(reader.time_base), reader.seconds, callback)
            interrupted = run_stages(reader, paint, writer, pace)
            if not writer.frames:  # what is at the target stays
                if interrupted:
                    raise KeyboardInterrupt
                raise VideoError(f"{source} has no frame there: check --start and --duration")
        return VideoResult(
            frames=writer.frames,
            seconds=time.monotonic() - begun,
            shortfall=0.0 if interrupted else reader.shortfall,
            damaged=reader.damaged,
            interrupted=interrupted,
            notes=tuple(writer.notes),
            encoder=writer.encoder,
        )


def run_stages(
    source: Iterable[Frame | AnyPacket],
    paint: Callable[[Array], Array],
    sink: Sink,
    callback: Callable[[Frame], None] = lambda _: None,
) -> bool:
    """Repaint the frames of `source` into `sink`, which are read and written in other threads.

    Packets pass as they are, in their place. Ctrl-C ends it with what is painted; a second one, at
    once, as an error would.

    Args:
        callback: called in the sink's thread after each frame.

    Returns:
        Whether Ctrl-C ended it.
    """
    stop = threading.Event()
    read: _Handover[Frame | AnyPacket] = _Handover(stop)
    painted: _Handover[Frame | AnyPacket] = _Handover(stop)

    def write() -> None:
        for part in painted:
            sink.write(part)
            if isinstance(part, Frame):
                callback(part)

    threads = [_Stage(lambda: read.take_from(source), read), _Stage(write, painted)]

    def finish() -> None:
        read.close()
        painted.end()
        for thread in threads:
            if thread.ident is not None:
                thread.over.wait()  # a join that Ctrl-C breaks off takes the thread for ended
                thread.join()

    interrupted = False
    try:
        try:
            for thread in threads:
                thread.start()
            for part in read:
                if isinstance(part, Frame):
                    part = replace(part, image=paint(part.image))
                if not painted.put(part):
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
    """A thread that keeps what went wrong."""

    def __init__(self, work: Callable[[], None], handover: _Handover[Frame | AnyPacket]) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self.over = threading.Event()
        self._work, self._handover = work, handover

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # told by the thread that waits for this one
            self.error = error
            self._handover.stop.set()
        finally:
            self.over.set()


class _Handover(Iterable[T]):
    """A short queue between two threads, either of which may leave."""

    _END = object()

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._queue: queue.Queue[T | object] = queue.Queue(WAITING)
        self._closed = threading.Event()

    def put(self, part: T | object) -> bool:
        """Hand something over; False where nobody takes it any more."""
        while not (self.stop.is_set() or self._closed.is_set()):
            try:
                self._queue.put(part, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def take_from(self, source: Iterable[T]) -> None:
        """Hand over all of `source`, then the end."""
        for part in source:
            if not self.put(part):
                return
        self.end()

    def end(self) -> None:
        """Say that nothing more comes."""
        self.put(self._END)

    def close(self) -> None:
        """Take no more."""
        self._closed.set()

    def __iter__(self) -> Iterator[T]:
        while not self.stop.is_set():
            try:
                part = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if part is self._END:
                return
            yield part  # type: ignore[misc]


class _Pace:
    """Tells how far it is and how fast it goes."""

    def __init__(
        self,
        unit: float,
        whole: float | None,
        callback: Callable[[VideoProgress], None] | None,
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
