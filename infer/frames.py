"""Video files as frames: opened, decoded, turned upright, in RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
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
from nst.images import Array

_UNSPECIFIED = 2  # of FFmpeg's AVCOL_SPC, AVCOL_PRI and AVCOL_TRC
_HD = 720  # lines from which BT.709 is meant where nothing is said
_SHORT = 0.25  # seconds by which a whole file may end before its declared end
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


class VideoReader:
    """The frames of a video file, and the packets of its sound and subtitles between them.

    What is damaged inside is left out and counted.

    Args:
        start, duration: seconds; None for the whole, or the rest.

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
    ) -> None:
        check_number("start", start)
        if duration is not None:
            check_number("duration", duration, above=True)
        self.path = os.fspath(path)
        self._container = _open(self.path)
        try:
            self._stream = self._video_stream()
            self._stream.thread_type = "AUTO"
            first = self._first_frame()
            if start:
                self._container.seek(
                    round(start * av.time_base) + (self._container.start_time or 0)
                )
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
        self.extras: tuple[Extra, ...] = (
            *self._container.streams.audio,
            *self._container.streams.subtitles,
        )
        self._origin = self._begin() + Fraction(start)
        self._start, self._duration = start, duration
        whole = self._declared()
        self.seconds = None if whole is None else max(0.0, whole - start)
        if duration is not None:
            self.seconds = duration if self.seconds is None else min(duration, self.seconds)
        if start and whole is not None and start >= whole:
            self._container.close()
            raise UsageError(f"--start {start:g} is beyond the end of {self.path}: {whole:.2f} s")
        self.damaged, self.end = 0, 0.0

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._container.metadata)

    @property
    def shortfall(self) -> float:
        """Seconds of what was declared that had no frames; 0 where that is as in whole files."""
        if self.seconds is None:
            return 0.0
        missing = self.seconds - self.end
        return missing if missing > _SHORT + 2 / self.rate else 0.0

    def chapters(self) -> list[av.container.core.Chapter]:
        """The chapters, where the whole file is read."""
        whole = not self._start and self._duration is None
        return self._container.chapters() if whole else []

    def __iter__(self) -> Iterator[Frame | AnyPacket]:
        """Frames, and packets of `extras`, in the order of the file; times begin with `start`."""
        stop = self._duration
        origin = round(self._origin / self.time_base)
        for packet in self._packets():
            if packet.stream is not self._stream:
                if packet.dts is not None and self._shift(packet, stop):
                    yield packet
                continue
            for frame in self._decoded(packet):
                if frame.pts is None:
                    continue
                pts = frame.pts - origin
                seconds = float(pts * self.time_base)
                if seconds < -1e-6:
                    continue
                if stop is not None and seconds >= stop - 1e-6:
                    return
                length = frame.duration * self.time_base if frame.duration else 1 / self.rate
                self.end = max(self.end, seconds + float(length))
                yield Frame(self._upright(frame), pts, frame.duration or 0)

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _video_stream(self) -> VideoStream:
        for stream in self._container.streams.video:
            # The cover of a piece of music is a video of one picture to FFmpeg.
            if not stream.disposition & av.stream.Disposition.attached_pic:
                return stream
        raise VideoError(f"{self.path} holds no video: give a file with moving pictures")

    def _first_frame(self) -> av.VideoFrame:
        """The first that can be decoded; the file is at its beginning again afterwards."""
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    continue
                for frame in frames:
                    self._container.seek(self._container.start_time or 0)
                    return frame
        except av.FFmpegError as error:
            raise VideoError(f"{self.path} cannot be decoded: {error.strerror}") from error
        raise VideoError(f"{self.path} holds no frame that can be decoded")

    def _begin(self) -> Fraction:
        """Where the file begins, in seconds: recorders of broadcasts don't start at 0."""
        begin = Fraction(self._container.start_time or 0, av.time_base)
        return begin if begin > 1 else Fraction(0)

    def _declared(self) -> float | None:
        if self._stream.duration is not None:
            return float(self._stream.duration * self.time_base)
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
        pts = packet.dts if packet.pts is None else packet.pts
        seconds = float((pts - offset) * base)
        if (self._start and seconds < 0) or (stop is not None and seconds >= stop):
            return False
        packet.dts -= offset
        if packet.pts is not None:
            packet.pts -= offset
        return True

    def _upright(self, frame: av.VideoFrame) -> Array:
        colors = Colors.of(frame)
        rgb = frame.reformat(
            format="rgb24", src_colorspace=colors.matrix, src_color_range=colors.range
        )
        image = np.rot90(rgb.to_ndarray(), self.turns)
        return np.ascontiguousarray(image, np.uint8)


@dataclass(frozen=True)
class Colors:
    """How YUV stands for RGB: the matrix (BT.601, BT.709, …), and whether it uses all levels."""

    matrix: int
    range: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colors:
        """Those of a frame; where it says nothing, what its height makes likely."""
        matrix = frame.colorspace
        if matrix not in set(Colorspace):
            guess = Colorspace.ITU709 if frame.height >= _HD else Colorspace.ITU601
            matrix = Colorspace.ITU601 if matrix == 6 else guess  # SMPTE 170M is BT.601
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        return cls(int(matrix), int(ColorRange.JPEG if full else ColorRange.MPEG))


def _open(path: str) -> av.container.InputContainer:
    try:
        if os.path.isdir(path):
            raise VideoError(f"{path} is a folder: give a video file")
        return av.open(path, metadata_errors="ignore")
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist: check the path") from error
    except PermissionError as error:
        raise VideoError(f"cannot read {path}: permission denied") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        empty = os.path.exists(path) and os.stat(path).st_size == 0  # noqa: PTH116 - may raise
        what = "is empty" if empty else "is no video that can be read, or is damaged"
        raise VideoError(f"{path} {what}: give a video file") from error
