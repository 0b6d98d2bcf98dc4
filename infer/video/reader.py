"""Video files as frames: opened, decoded, turned upright, in RGB."""

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
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from nst.config import check_number
from nst.errors import UsageError, VideoError
from nst.io.files import Closing
from nst.io.images import Array

_HD = 720  # lines from which BT.709 is meant where nothing is said
_SHORT = 0.25  # seconds by which a whole file may end before its declared end
_JUMP = 1  # seconds back in time that mean another recording, not disorder
_LATEST = 1e7  # seconds; more is no video
_LAG = 10.0  # seconds by which sound may lie behind the pictures in a file
_UNSAID = 2  # of primaries and transfer, in FFmpeg's numbers
Extra = AudioStream | SubtitleStream
AnyPacket: TypeAlias = "Packet[Any]"


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        image: HWC uint8 RGB, upright.
        pts: when it is shown, in the reader's `time_base`.
        duration: for how long, in the same; 0 where nothing is said.
    """

    image: Array
    pts: int
    duration: int = 0


class VideoReader(Closing):
    """The frames of a video file, and the packets of its sound and subtitles between them.

    What is damaged inside is left out and counted.

    Args:
        start, duration: seconds; None for the whole, or the rest.
        extras: whether sound and subtitles are read, too.

    Attributes:
        size: (height, width) of the frames, upright.
        time_base: unit of timestamps, in seconds.
        rate: frames per second, on average.
        pixel_aspect: width of a pixel over its height, upright.
        colors: matrix and range of the file's YUV.
        extras: the streams of sound and subtitles.
        seconds: how long it is said to last, less what `start` and `duration` leave out; None where
            nothing is said.
        damaged: packets that could not be decoded, so far.
        end: seconds from the beginning to where the last frame ends, so far.

    Raises:
        VideoError: it is missing, no video, or damaged so that it can't be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        start: float = 0.0,
        duration: float | None = None,
        extras: bool = True,
    ) -> None:
        check_number("start", start, most=_LATEST)
        if duration is not None:
            check_number("duration", duration, above=True)
        self.path = os.fspath(path)
        self._container = _open(self.path)
        try:
            self._stream = self._video_stream()
            first = self._first_frame()
            # Not every container can seek to its very beginning.
            self._again()
            self._origin = self._begin() + Fraction(start)
            whole = self._declared()
            if start and whole is not None and start >= whole:
                raise UsageError(
                    f"--start {start:g} is beyond the end of {self.path}: {whole:.2f} s"
                )
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
        self._heard = 0.0  # where the last packet of the extras is
        self._past: set[av.stream.Stream] = set()  # those of which no packet can come any more
        self._clocks: dict[int, _Clock] = {}

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._container.metadata)

    @property
    def shortfall(self) -> float:
        """Seconds of what was declared that had no frames; 0 where that is as in whole files."""
        if self.seconds is None:
            return 0.0
        # A container's duration is that of its longest stream.
        missing = self.seconds - (self.end if self._says else max(self.end, self._heard))
        return missing if missing > _SHORT + 2 / self.rate else 0.0

    def chapters(self) -> list[av.container.core.Chapter]:
        """The chapters, where the whole file is read."""
        whole = not self._start and self._duration is None
        return self._container.chapters() if whole else []

    def __iter__(self) -> Iterator[Frame | AnyPacket]:
        """Frames, and packets of `extras`, in the order of the file; times begin with `start`."""
        stop, ended = self._duration, False
        origin = round(self._origin / self.time_base)
        for packet in self._packets():
            if packet.stream is not self._stream:
                if packet.dts is not None and self._shift(packet, stop):
                    yield packet
                elif ended and self._past.issuperset(self.extras):
                    return
                continue
            if ended:
                assert stop is not None
                if packet.dts is not None:
                    late = float((packet.dts - origin) * self.time_base)
                    if late > stop + _LAG:
                        return
                continue
            for frame in self._decoded(packet):
                clock = self._clock(self._stream)
                length = frame.duration or round(1 / self.rate / self.time_base)
                pts = clock.tell(frame.pts, length) - origin
                seconds = float(pts * self.time_base)
                if seconds < -1e-6:
                    continue
                if stop is not None and seconds >= stop - 1e-6:
                    if self._past.issuperset(self.extras):
                        return
                    ended = True
                    break
                self.end = max(self.end, seconds + float(length * self.time_base))
                yield Frame(self._upright(frame), pts, frame.duration or 0)

    def key_times(self) -> list[float]:
        """Seconds at which there are key frames, from the beginning of the file.

        Those only that have a frame before them which is not before the start.

        Raises:
            UsageError: the timestamps go back, as where recordings were put together.
        """
        begin, times, latest, first = self._begin(), [], -math.inf, math.inf
        with _open(self.path) as container:
            for packet in _readable(container.demux(container.streams[self._stream.index])):
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                dts = float(packet.dts * packet.time_base)
                if dts < latest - _JUMP:
                    raise UsageError(f"the timestamps of {self.path} go back: leave out --workers")
                latest = max(latest, dts)
                time = float(packet.pts * packet.time_base - begin)
                if time >= self._start - 1e-6:
                    first = min(first, time)
                if packet.is_keyframe:
                    times.append(time)
        return [time for time in times if time > first]

    def extra_packets(self, stop: float | None = None) -> Iterator[AnyPacket]:
        """The packets of `extras` alone, up to `stop` seconds; in place of iterating over all."""
        stop = self._duration if stop is None else stop
        if not self.extras:
            return
        for packet in _readable(self._container.demux(*self.extras)):
            if packet.dts is not None and self._shift(packet, stop):
                yield packet
            elif self._past.issuperset(self.extras):
                return

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def _video_stream(self) -> VideoStream:
        for stream in self._container.streams.video:
            # The cover of a piece of music is a video of one picture to FFmpeg.
            if not stream.disposition & av.stream.Disposition.attached_pic:
                return stream
        raise VideoError(f"{self.path} holds no video: give a file with moving pictures")

    def _again(self) -> None:
        """Open the file anew, at its beginning."""
        self._container.close()
        self._container = _open(self.path)
        self._stream = self._video_stream()
        self._stream.thread_type = "AUTO"

    def _seek(self) -> None:
        """Go to a frame at or before the start, which some containers find late."""
        begin = self._begin()
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
        self._again()

    def _clock(self, stream: av.stream.Stream) -> _Clock:
        return self._clocks.setdefault(stream.index, _Clock(stream.time_base))

    def _first_frame(self) -> av.VideoFrame:
        """The first that can be decoded."""
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    continue
                if frames:
                    return frames[0]
        except av.FFmpegError as error:
            raise VideoError(f"{self.path} cannot be decoded: {error.strerror}") from error
        raise VideoError(f"{self.path} holds no frame that can be decoded")

    def _begin(self) -> Fraction:
        """Where the file begins, in seconds: recorders of broadcasts don't start at 0."""
        begin = Fraction(self._container.start_time or 0, av.time_base)
        return begin if begin > 1 else Fraction(0)

    def _declared(self) -> float | None:
        """Seconds that the pictures are said to last, or the whole file."""
        own = self._stream.duration
        said = self._stream.metadata.get("DURATION", "").split(":")  # of Matroska
        self._says = own is not None or len(said) == 3
        if own is not None and self._stream.time_base is not None:
            return float(own * self._stream.time_base)
        if self._says:
            try:
                hours, minutes, seconds = map(float, said)
                return hours * 3600 + minutes * 60 + seconds - float(self._begin())
            except ValueError:
                self._says = False
        if self._container.duration is not None:
            return self._container.duration / av.time_base
        return None

    def _packets(self) -> Iterator[AnyPacket]:
        packets = self._container.demux(self._stream, *self.extras)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.EOFError):
                return
            except av.FFmpegError:  # the rest can't be read
                self.damaged += 1
                return
            yield packet

    def _decoded(self, packet: AnyPacket) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.EOFError:
            return []
        except av.FFmpegError:
            self.damaged += 1
            return []

    def _shift(self, packet: AnyPacket, stop: float | None) -> bool:
        """Move a packet of sound or text to the new beginning; whether it is within."""
        base = packet.time_base or Fraction(1, av.time_base)
        offset = round(self._origin / base)
        assert packet.dts is not None
        later = 0 if packet.pts is None else packet.pts - packet.dts
        dts = self._clock(packet.stream).tell(packet.dts, packet.duration or 1) - offset
        seconds = float((dts + later) * base)
        if stop is not None and seconds >= stop:
            self._past.add(packet.stream)
            return False
        if self._start and seconds < 0:
            return False
        self._heard = max(self._heard, seconds)
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


class _Clock:
    """Timestamps of one stream that never go back, as muxers want them.

    Recordings that were put together begin anew in the middle: they are shown one after another.
    """

    def __init__(self, time_base: Fraction | None) -> None:
        self._jump = _JUMP / (time_base or Fraction(1, av.time_base))
        self._last: int | None = None
        self._next = self._moved = 0

    def tell(self, time: int | None, length: int) -> int:
        """When it is, in the stream's time base; after the one before, where nothing is said."""
        now = self._next if time is None else time + self._moved
        if self._last is not None and now <= self._last:
            if self._last - now > self._jump:
                self._moved += self._next - now
                now = self._next
            else:
                now = self._last + 1
        self._last, self._next = now, now + max(1, length)
        return now


@dataclass(frozen=True)
class Colors:
    """How YUV stands for RGB: the matrix (BT.601, BT.709, …), and whether it uses all levels.

    What the RGB stands for, primaries and transfer, is passed on as it is: a player then shows the
    picture in HDR if the source was.
    """

    matrix: int
    range: int
    primaries: int = _UNSAID
    transfer: int = _UNSAID

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colors:
        """Those of a frame; where it says nothing, what its height makes likely."""
        matrix = frame.colorspace
        if matrix not in set(Colorspace):
            guess = Colorspace.ITU709 if frame.height >= _HD else Colorspace.ITU601
            matrix = Colorspace.ITU601 if matrix == 6 else guess  # SMPTE 170M is BT.601
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        levels = ColorRange.JPEG if full else ColorRange.MPEG
        return cls(int(matrix), int(levels), int(frame.color_primaries), int(frame.color_trc))


def _readable(packets: Iterator[AnyPacket]) -> Iterator[AnyPacket]:
    """As many as can be read."""
    with contextlib.suppress(av.FFmpegError):
        yield from packets


def _open(path: str) -> av.container.InputContainer:
    try:
        if os.path.isdir(path):
            raise VideoError(f"{path} is a folder: give a video file")
        # Of a relative path FFmpeg takes what is before a colon for a protocol.
        return av.open(os.path.abspath(path), metadata_errors="ignore")  # noqa: PTH100
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist: check the path") from error
    except PermissionError as error:
        raise VideoError(f"cannot read {path}: permission denied") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        empty = os.path.exists(path) and os.stat(path).st_size == 0  # noqa: PTH116 - may raise
        what = "is empty" if empty else "is no video that can be read, or is damaged"
        raise VideoError(f"{path} {what}: give a video file") from error
