"""Repaints a long video by several processes, each a part from key frame to key frame."""

from __future__ import annotations

import heapq
import math
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from nst.config import check_number
from nst.errors import NstError, UsageError, VideoError
from nst.infer.video.encoders import check_fits
from nst.infer.video.pipeline import (
    VideoProgress,
    VideoResult,
    check_target,
    open_writer,
    repaint_video,
)
from nst.infer.video.reader import AnyPacket, VideoReader
from nst.infer.video.schedule import VideoStyle, VideoStylizer
from nst.infer.video.sequence import is_sequence
from nst.infer.video.writer import EncodeConfig
from nst.io.files import cannot_write, check_writable
from nst.io.images import Array
from nst.system.quota import usable_cores

JOINED = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
WARMUP = 1.5  # seconds before a part that are repainted too, until the running means settle
_TICK = 0.2  # seconds between two checks of the workers


@dataclass(frozen=True)
class _Part:
    """A part of the video: its place in the source, in seconds, and the file of its frames."""

    start: float
    duration: float | None
    warmup: float
    path: Path


@dataclass(frozen=True)
class _Job:
    """The arguments that all workers share."""

    style: VideoStyle
    source: str
    size: int | None
    begin: float
    encode: EncodeConfig
    target: str


def repaint_in_parallel(
    style: VideoStyle,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    workers: int,
    *,
    size: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    encode: EncodeConfig | None = None,
    callback: Callable[[VideoProgress], None] | None = None,
) -> VideoResult:
    """Repaint a video with a `VideoStylizer` of `style` in several processes; see `repaint_video`.

    The parts begin at key frames of the source. Each process also repaints the second and a half
    before its part, so that running means over the frames continue. Ctrl-C leaves a file of what is
    done from the beginning without a gap. A script must call this below
    `if __name__ == "__main__":`, as the processes import it.

    Args:
        workers: number of processes; fewer are used if there are fewer key frames.

    Raises:
        UsageError: the source or the target is no video file, or its parts can't be joined.
        Other errors as in `repaint_video`.
    """
    check_number("workers", workers, least=1, most=256)
    check_target(source, target)
    target = Path(target)
    if is_sequence(source) or target.suffix.lower() not in JOINED:
        what = source if is_sequence(source) else target
        raise UsageError(
            f"workers can only join {' '.join(JOINED)} files: repaint {what} in a single process"
        )
    begun = time.monotonic()
    encode = encode or EncodeConfig()
    codec = encode.codec or ("vp9" if target.suffix.lower() == ".webm" else "h264")
    check_fits(target, codec)
    try:
        check_fits(Path("part.mp4"), codec)
    except UsageError as error:
        raise UsageError(
            f"workers cannot join what {codec} encodes: repaint in a single process"
        ) from error
    check_writable(target)
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(source, start=start, duration=duration))
        folder = stack.enter_context(_folder_beside(target))
        unit = reader.time_base
        starts = _starts(reader.key_times(), start, reader.seconds, workers)
        stop = None if duration is None else start + duration
        parts = [
            _Part(
                begin,
                None if end is None else end - begin,
                # A whole number of ticks, or timestamps would fall between two of them.
                float(round(min(WARMUP, begin - start) / unit) * unit),
                Path(folder) / f"{number:03d}.mp4",  # its timestamps are exact
            )
            for number, (begin, end) in enumerate(zip(starts, [*starts[1:], stop], strict=True))
        ]
        notes = []
        if len(parts) < workers:
            notes = [f"key frames for {len(parts)} of {workers} workers"]
        threads = style.threads or max(1, math.ceil(usable_cores()) // len(parts))
        style = replace(style, threads=threads)
        encode = replace(encode, codec=codec, joined=True)
        job = _Job(style, os.fspath(source), size, start, encode, os.fspath(target))
        results, interrupted = _work(job, parts, callback)
        if not results:
            raise KeyboardInterrupt
        with _ctrl_c_ignored():
            notes += _join(target, parts[: len(results)], reader, start, cut=interrupted)
        notes += [note for result in results for note in result.notes]
    return VideoResult(
        frames=sum(result.frames for result in results),
        seconds=time.monotonic() - begun,
        shortfall=0.0 if interrupted else sum(result.shortfall for result in results),
        damaged=sum(result.damaged for result in results),
        interrupted=interrupted,
        notes=tuple(dict.fromkeys(notes)),
        encoder=results[0].encoder,
    )


def _folder_beside(target: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f".{target.stem[:40]}-", dir=target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error


def _starts(
    key_times: Sequence[float], start: float, seconds: float | None, workers: int
) -> list[float]:
    """Return where the parts begin: at the start and the key frames nearest to equal shares."""
    stop = max(key_times, default=start) if seconds is None else start + seconds
    inside = [time for time in key_times if start < time < stop - 1e-6]
    wanted = [start + (stop - start) * part / workers for part in range(1, workers)]
    near = {min(inside, key=lambda time: abs(time - goal)) for goal in wanted} if inside else set()
    return [start, *sorted(near)]


def _work(
    job: _Job, parts: Sequence[_Part], callback: Callable[[VideoProgress], None] | None
) -> tuple[list[VideoResult], bool]:
    """Repaint the parts; return the leading finished ones, and whether Ctrl-C interrupted it."""
    context = multiprocessing.get_context("spawn")
    reports, stop = context.Queue(), context.Event()
    total = _TotalProgress(len(parts), callback)
    interrupted = False
    with ProcessPoolExecutor(len(parts), context, _prepare, (reports, stop)) as pool:
        try:
            with _ctrl_c_blocked():
                futures = [pool.submit(_repaint_part, job, k, part) for k, part in enumerate(parts)]
            while True:
                try:
                    pending = wait(futures, _TICK).not_done
                    total.update(reports)
                    if not pending or any(f.done() and f.exception() for f in futures):
                        break
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    stop.set()
        finally:
            stop.set()  # a worker's error, or a second Ctrl-C, ends the others
    for future in futures:  # errors come first: a worker that fails has stopped the others
        try:
            future.result()
        except BrokenProcessPool as error:
            raise NstError(
                "a worker was killed: is memory short? Use fewer workers (and let a script of "
                'your own begin with  if __name__ == "__main__":)'
            ) from error
    results = []
    for future in futures:
        result = future.result()
        if result is None:
            break
        results.append(result)
        if result.interrupted:
            break
    return results, interrupted


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Block SIGINT for processes that are started meanwhile, even while they start."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignore Ctrl-C: it would throw away hours of work for seconds of writing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _TotalProgress:
    """Adds up the progress of all workers and reports it."""

    def __init__(self, parts: int, callback: Callable[[VideoProgress], None] | None) -> None:
        self._latest: list[VideoProgress | None] = [None] * parts
        self._callback, self._begun = callback, time.monotonic()

    def update(self, reports: multiprocessing.Queue[tuple[int, VideoProgress]]) -> None:
        """Take the workers' new reports, if any, and call the callback."""
        news = False
        with suppress(queue.Empty):
            while True:
                number, progress = reports.get_nowait()
                self._latest[number], news = progress, True
        if not news or self._callback is None:
            return
        known = [progress for progress in self._latest if progress is not None]
        shares = [progress.done for progress in known if progress.done is not None]
        done = left = None
        if len(shares) == len(known):
            done = sum(shares) / len(self._latest)
            left = (time.monotonic() - self._begun) * (1 - done) / done if done else None
        frames = sum(progress.frames for progress in known)
        speed = sum(progress.frames_per_second for progress in known)
        self._callback(VideoProgress(frames, speed, done, left))


_reports: Any = None
_stop: Any = None


def _prepare(reports: Any, stop: Any) -> None:
    """Set up a worker: keep the parent's queue and event, and leave Ctrl-C to the parent."""
    global _reports, _stop
    _reports, _stop = reports, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this worker with its parent: one that is killed can't stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _repaint_part(job: _Job, number: int, part: _Part) -> VideoResult | None:
    """Repaint a part in a worker; return None if it was stopped before its first frame."""
    with VideoStylizer(job.style, part.start - job.begin) as stylizer:
        try:
            return repaint_video(
                _Stoppable(stylizer),
                job.source,
                part.path,
                size=job.size,
                start=part.start,
                duration=part.duration,
                warmup=part.warmup,
                extras=False,
                encode=job.encode,
                callback=lambda progress: _reports.put((number, progress)),
            )
        except KeyboardInterrupt:
            return None
        except VideoError as error:
            raise VideoError(
                f"{job.source} cannot be read from {part.start:.1f} s on: repaint it in a single "
                "process"
            ) from error
        except NstError as error:  # users do not know the part's file
            raise type(error)(str(error).replace(os.fspath(part.path), job.target)) from error


class _Stoppable:
    """A stylizer that raises `KeyboardInterrupt` once the parent has set the stop event."""

    def __init__(self, stylizer: VideoStylizer) -> None:
        self._stylizer = stylizer

    def at(self, image: Array, seconds: float) -> Array:
        if _stop.is_set():
            raise KeyboardInterrupt
        return self._stylizer.at(image, seconds)


def _join(
    target: Path, parts: Sequence[_Part], reader: VideoReader, begin: float, *, cut: bool
) -> list[str]:
    """Write the parts' frames and the source's sound into one file.

    Args:
        begin: second of the source at which the first part begins.
        cut: whether the sound ends with the last frame.

    Returns:
        A line for each stream that was left out.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(av.open(os.fspath(part.path))) for part in parts]
        streams = [file.streams.video[0] for file in files]
        if len({bytes(stream.codec_context.extradata or b"") for stream in streams}) > 1:
            raise UsageError("this encoder's parts cannot be joined: repaint in a single process")
        unit = reader.time_base
        offsets = [round((part.start - begin) / unit) * unit for part in parts]
        end = float(offsets[-1]) + (files[-1].duration or 0) / av.time_base if cut else None
        with open_writer(target, reader, reader.size, copied=streams[0]) as writer:
            video = ((dts, writer.copy, packet) for dts, packet in _video_packets(files, offsets))
            extras = ((_time(p), writer.write, p) for p in reader.extra_packets(end))
            for _, write, packet in heapq.merge(video, extras, key=lambda item: item[0]):
                write(packet)
        return writer.notes


def _video_packets(
    files: Sequence[av.container.InputContainer], offsets: Sequence[Fraction]
) -> Iterator[tuple[Fraction, AnyPacket]]:
    """Yield (decoding time, packet) for all parts, at their times in the whole video."""
    last: Fraction | None = None
    for file, offset in zip(files, offsets, strict=True):
        for packet in file.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            base = packet.time_base
            ticks = round(offset / base)
            packet.pts += ticks
            packet.dts += ticks
            if last is not None and packet.dts * base <= last:
                packet.dts = min(packet.pts, int(last / base) + 1)
            last = packet.dts * base
            yield last, packet


def _time(packet: AnyPacket) -> Fraction:
    assert packet.dts is not None
    return packet.dts * (packet.time_base or Fraction(1, av.time_base))
