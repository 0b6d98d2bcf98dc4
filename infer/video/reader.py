"""Reads video files: upright RGB frames, and the packets of sound and subtitles."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from nst.config import check_number
from nst.errors import UsageError, VideoError
from nst.infer.video.colors import Colors
from nst.infer.video.timestamps import JUMP, MonotonicTimestamps
from nst.io.files import Closing
from nst.io.images import Array

_TOLERANCE = 0.25  # seconds by which an undamaged file may end before its declared end
LATEST = 1e7  # seconds; more is no video
_MAX_LAG = 10.0  # seconds by which sound may lie behind the frames in a file
Extra = AudioStream | SubtitleStream
AnyPacket: TypeAlias = "Packet[Any]"


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        image: HWC uint8 RGB, upright.
        pts: presentation time, in units of the reader's `time_base`.
        duration: how long it is shown, in the same units; 0 where the file does not say.
    """

    image: Array
    pts: int
    duration: int = 0


class VideoReader(Closing):
    """Iterates over the frames of a video file, and over the packets of its sound and subtitles.

    Damaged packets are left out and counted.

    Args:
        start: second at which to begin.
        duration: seconds to read; None for the rest.
        extras: whether sound and subtitles are read, too.

    Attributes:
        size: (height, width) of the frames, upright.
        time_base: unit of timestamps, in seconds.
        rate: frames per second, on average.
        pixel_aspect: width of a pixel over its height, upright.
        colors: encoding of the file's YUV.
        extras: the streams of sound and subtitles.
        seconds: declared length, without what `start` and `duration` leave out; None where the
            file declares none.
        damaged: number of packets so far that could not be decoded.
        end: seconds from the beginning to the end of the last frame so far.

    Raises:
        VideoError: the file is missing, no video, or so damaged that it can't be opened.
        UsageError: `start` is beyond its end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        start: float = 0.0,
        duration: float | None = None,
        extras: bool = True,
    ) -> None:
        check_number("start", start, most=LATEST)
        if duration is not None:
            check_number("duration", duration, above=True)
        self.path = os.fspath(path)
        self._container = _open(self.path)
        try:
            self._stream = self._video_stream()
            first = self._first_frame()
            # Not every container can seek to its very beginning.
            self._reopen()
            self._origin = self._file_start() + Fraction(start)
            whole = self._declared_duration()
            if start and whole is not None and start >= whole:
                raise UsageError(f"start {start:g} is beyond the end of {self.path}: {whole:.2f} s")
            if start:
                self._seek()
        except BaseException:
            self._container.close()
            raise
        assert self._stream.time_base is not None
        self.time_base: Fraction = self._stream.time_base
        self.rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.turns = round(first.rotation / 90) % 4
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = 1 / aspect if self.turns % 2 else aspect
        sides = (first.height, first.width)
        self.size = sides[::-1] if self.turns % 2 else sides
        self.colors = Colors.of(first)
        streams = self._container.streams
        self.extras: tuple[Extra, ...] = (*streams.audio, *streams.subtitles) if extras else ()
        self._start, self._duration = start, duration
        self.seconds = None if whole is None else max(0.0, whole - start)
        if duration is not None:
            self.seconds = duration if self.seconds is None else min(duration, self.seconds)
        self.damaged, self.end = 0, 0.0
        self._extras_end = 0.0  # seconds to the last packet of the extras so far
        self._finished: set[av.stream.Stream] = set()  # extras that have passed the stop
        self._timestamps: dict[int, MonotonicTimestamps] = {}

    @property
    def metadata(self) -> dict[str, str]:
        """The tags of the file, such as its title."""
        return dict(self._container.metadata)

    @property
    def shortfall(self) -> float:
        """Seconds that are declared and had no frames; 0 if no more than in an undamaged file."""
        if self.seconds is None:
            return 0.0
        # A container's duration is the duration of its longest stream.
        end = self.end if self._stream_declares else max(self.end, self._extras_end)
        missing = self.seconds - end
        return missing if missing > _TOLERANCE + 2 / self.rate else 0.0

    def chapters(self) -> list[av.container.core.Chapter]:
        """Return the chapters; none where only a part of the file is read."""
        whole = not self._start and self._duration is None
        return self._container.chapters() if whole else []

    def __iter__(self) -> Iterator[Frame | AnyPacket]:
        """Yield frames, and packets of `extras`, in the file's order; `start` is time 0."""
        stop, ended = self._duration, False
        origin = round(self._origin / self.time_base)
        for packet in self._packets():
            if packet.stream is not self._stream:
                if packet.dts is not None and self._shift(packet, stop):
                    yield packet
                elif ended and self._finished.issuperset(self.extras):
                    return
                continue
            if ended:
                assert stop is not None
                if packet.dts is not None:
                    late = float((packet.dts - origin) * self.time_base)
                    if late > stop + _MAX_LAG:
                        return
                continue
            for frame in self._decoded(packet):
                length = frame.duration or round(1 / self.rate / self.time_base)
                pts = self._corrected(self._stream, frame.pts, length) - origin
                seconds = float(pts * self.time_base)
                if seconds < -1e-6:
                    continue
                if stop is not None and seconds >= stop - 1e-6:
                    if self._finished.issuperset(self.extras):
                        return
                    ended = True
                    break
                self.end = max(self.end, seconds + float(length * self.time_base))
                yield Frame(self._upright(frame), pts, frame.duration or 0)

    def key_times(self) -> list[float]:
        """Return the times of the key frames, in seconds from the beginning of the file.

        Key frames without another frame between `start` and them are left out.

        Raises:
            UsageError: the timestamps go back, as in recordings that were joined.
        """
        begin, times, latest, first = self._file_start(), [], -math.inf, math.inf
        with _open(self.path) as container:
            for packet in _readable(container.demux(container.streams[self._stream.index])):
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                dts = float(packet.dts * packet.time_base)
                if dts < latest - JUMP:
                    raise UsageError(
                        f"the timestamps of {self.path} go back: repaint it in a single process"
                    )
                latest = max(latest, dts)
                time = float(packet.pts * packet.time_base - begin)
                if time >= self._start - 1e-6:
                    first = min(first, time)
                if packet.is_keyframe:
                    times.append(time)
        return [time for time in times if time > first]

    def extra_packets(self, stop: float | None = None) -> Iterator[AnyPacket]:
        """Yield the packets of `extras` alone, up to `stop` seconds.

        Use it in place of iterating over the reader, not beside it.
        """
        stop = self._duration if stop is None else stop
        if not self.extras:
            return
        for packet in _readable(self._container.demux(*self.extras)):
            if packet.dts is not None and self._shift(packet, stop):
                yield packet
            elif self._finished.issuperset(self.extras):
                return

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def _video_stream(self) -> VideoStream:
        for stream in self._container.streams.video:
            # To FFmpeg the cover image of a piece of music is a video of one frame.
            if not stream.disposition & av.stream.Disposition.attached_pic:
                return stream
        raise VideoError(f"{self.path} holds no video: give a file with moving pictures")

    def _reopen(self) -> None:
        """Open the file again, at its beginning."""
        self._container.close()
        self._container = _open(self.path)
        self._stream = self._video_stream()
        self._stream.thread_type = "AUTO"

    def _seek(self) -> None:
        """Seek to a frame at or before the start; some containers land after it at first."""
        begin = self._file_start()
        for back in (0, 2, 8, 32):
            target = self._origin - back
            if target <= begin:
                break
            offset = int(target * av.time_base)
            try:
                self._container.seek(offset)
                frame = next(self._container.decode(self._stream))
                if frame.time is not None and frame.time <= self._origin + Fraction(1, 1000):
                    self._container.seek(offset)
                    return
            except (av.FFmpegError, StopIteration):
                break
        self._reopen()

    def _corrected(self, stream: av.stream.Stream, time: int | None, duration: int) -> int:
        made = MonotonicTimestamps(stream.time_base)
        return self._timestamps.setdefault(stream.index, made).correct(time, duration)

    def _first_frame(self) -> av.VideoFrame:
        """Return the first frame that can be decoded."""
        try:
            for packet in self._container.demux(self._stream):
                with contextlib.suppress(av.FFmpegError):
                    frames = packet.decode()
                    if frames:
                        return frames[0]
        except av.FFmpegError as error:
            raise VideoError(f"{self.path} cannot be decoded: {error.strerror}") from error
        raise VideoError(f"{self.path} holds no frame that can be decoded")

    def _file_start(self) -> Fraction:
        """Return the second at which the file begins: recorded broadcasts don't start at 0."""
        begin = Fraction(self._container.start_time or 0, av.time_base)
        return begin if begin > 1 else Fraction(0)

    def _declared_duration(self) -> float | None:
        """Return the declared seconds of the video stream, or else of the whole file."""
        own = self._stream.duration
        tag = self._stream.metadata.get("DURATION", "").split(":")  # Matroska's
        self._stream_declares = own is not None or len(tag) == 3
        if own is not None and self._stream.time_base is not None:
            return float(own * self._stream.time_base)
        if self._stream_declares:
            try:
                hours, minutes, seconds = map(float, tag)
                return hours * 3600 + minutes * 60 + seconds - float(self._file_start())
            except ValueError:
                self._stream_declares = False
        duration = self._container.duration
        return None if duration is None else duration / av.time_base

    def _packets(self) -> Iterator[AnyPacket]:
        try:
            yield from self._container.demux(self._stream, *self.extras)
        except av.EOFError:
            return
        except av.FFmpegError:  # the rest can't be read
            self.damaged += 1

    def _decoded(self, packet: AnyPacket) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.EOFError:
            return []
        except av.FFmpegError:
            self.damaged += 1
            return []

    def _shift(self, packet: AnyPacket, stop: float | None) -> bool:
        """Shift a packet of `extras` so that `start` is 0; return whether it lies in the part."""
        base = packet.time_base or Fraction(1, av.time_base)
        offset = round(self._origin / base)
        assert packet.dts is not None
        later = 0 if packet.pts is None else packet.pts - packet.dts
        dts = self._corrected(packet.stream, packet.dts, packet.duration or 1) - offset
        seconds = float((dts + later) * base)
        if stop is not None and seconds >= stop:
            self._finished.add(packet.stream)
            return False
        if self._start and seconds < 0:
            return False
        self._extras_end = max(self._extras_end, seconds)
        packet.dts, packet.pts = dts, dts + later
        return True

    def _upright(self, frame: av.VideoFrame) -> Array:
        colors = Colors.of(frame)
        rgb = frame.reformat(
            format="rgb24",
            src_colorspace=colors.matrix,
            src_color_range=colors.range,
            threads=1,  # the network needs the others
        )
        image = np.rot90(rgb.to_ndarray(), self.turns)
        return np.ascontiguousarray(image, np.uint8)


def _readable(packets: Iterator[AnyPacket]) -> Iterator[AnyPacket]:
    """Yield packets up to the first that can't be read."""
    with contextlib.suppress(av.FFmpegError):
        yield from packets


def _open(path: str) -> av.container.InputContainer:
    try:
        if os.path.isdir(path):
            raise VideoError(f"{path} is a folder: give a video file")
        # FFmpeg takes what is before a colon in a relative path for a protocol.
        return av.open(os.path.abspath(path), metadata_errors="ignore")  # noqa: PTH100
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist: check the path") from error
    except PermissionError as error:
        raise VideoError(f"cannot read {path}: permission denied") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        empty = os.path.exists(path) and os.stat(path).st_size == 0  # noqa: PTH116 - may raise
        what = "is empty" if empty else "is no video that can be read, or is damaged"
        raise VideoError(f"{path} {what}: give a video file") from error
