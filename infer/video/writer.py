"""Writes video files: encodes frames, and copies the sound and subtitles of another file."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Stream
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from nst.config import check_numbers
from nst.errors import NstError, UsageError
from nst.infer.video import encoders
from nst.infer.video.audio import Transcoder
from nst.infer.video.colors import Colors
from nst.infer.video.reader import AnyPacket, Extra, Frame, VideoReader
from nst.io.files import Closing, replacing

_COUNT_FRAMES = {"avi", "asf"}  # containers that number frames, in decoding order
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
# Write MP4 and Matroska in parts of a second, which can be played even if the end is never written.
# A late index (moov) can hold the list of edits that lets MP4's first frame be shown at 0.
_FRAGMENTED = {
    "movflags": "hybrid_fragmented+delay_moov",
    "frag_duration": "1000000",  # microseconds
    "cluster_time_limit": "1000",  # milliseconds
}


@dataclass(frozen=True)
class EncodeConfig:
    """Options for encoding a video.

    Args:
        codec: `h264`, `hevc`, `av1`, `vp9`, or the name of an FFmpeg encoder; None for the usual
            codec of the file's suffix.
        crf: constant quality, lower is better and larger; None for the codec's usual one.
        preset: speed of the encoder, in its own words (`ultrafast` … `veryslow` for H.264).
        hardware: encode on the graphics card or the processor's media unit, if there is one.
        joined: encode a part that will be joined with others.
    """

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    hardware: bool = False
    joined: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "crf", most=63)
        if self.codec is not None and self.codec not in get_args(encoders.Codec):
            encoders.find_encoder(self.codec)


class VideoWriter(Closing):
    """Writes a video file that appears whole or not at all.

    Args:
        path: the suffix names the container.
        size: (height, width) of the frames; an odd side is enlarged by repeating its last row or
            column.
        time_base: unit of the frames' timestamps, in seconds.
        rate: frames per second, on average.
        colors: encoding of the YUV to write.
        pixel_aspect: width of a pixel over its height.
        extras: streams of sound and subtitles whose packets will be written. They are copied where
            the container takes them; other sound is transcoded, other subtitles are left out.
        metadata, chapters: of the file.
        copied: a video stream whose packets will be given to `copy`, in place of frames.
        recoverable: keep the file if it can't be written to its end, as far as it can be played.

    Attributes:
        frames: number of frames written so far.
        notes: a line for each stream that could not be copied.
        encoder: name of the encoder in use.
        recovered: whether the file ended early and its playable part is in place.

    Raises:
        UsageError: the codec is unknown, or the container does not take it. NstError: the target
        can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int],
        *,
        time_base: Fraction,
        rate: Fraction,
        colors: Colors,
        config: EncodeConfig | None = None,
        pixel_aspect: Fraction = Fraction(1),
        extras: Sequence[Extra] = (),
        metadata: Mapping[str, str] | None = None,
        chapters: Sequence[av.container.core.Chapter] = (),
        copied: VideoStream | None = None,
        recoverable: bool = False,
    ) -> None:
        self.path, self.size, self.colors = Path(path), size, colors
        config = config or EncodeConfig()
        self.notes: list[str] = []
        self._recoverable, self.recovered = recoverable, False
        self._closing = contextlib.ExitStack()
        self._beside = self._closing.enter_context(replacing(self.path))
        # FFmpeg writes MP4, but knows no .m4v.
        form = {".m4v": "mp4"}.get(self.path.suffix.lower())
        try:
            try:
                with self._written():
                    self._container = av.open(
                        os.fspath(self._beside),
                        "w",
                        format=form,
                        container_options=_FRAGMENTED if recoverable else {},
                    )
            except ValueError as error:
                raise UsageError(
                    f"{self.path} has no suffix that names a video format: use .mp4, .mkv, .mov "
                    "or .webm"
                ) from error
            self._closing.callback(self._container.close)
            self._time_base = self._unit = time_base
            if copied is None:
                self._stream = self._video_stream(config, rate)
                self._stream.sample_aspect_ratio = pixel_aspect
            else:
                self._stream = self._container.add_stream_from_template(copied)
                self._stream.codec_context.framerate = rate  # the template has its time base
            self.encoder = self._stream.codec_context.codec.name
            self._extras = {extra: self._extra_stream(extra) for extra in extras}
            self._container.metadata.update(metadata or {})
            if chapters:
                self._container.set_chapters(list(chapters))
            with self._written():
                self._container.start_encoding()
        except BaseException as error:
            self.abandon(error)
            raise
        self.frames, self._last = 0, -(1 << 62)
        self._copies = copied is not None

    def write(self, part: Frame | AnyPacket) -> None:
        """Write a frame, or a packet of one of `extras`.

        Raises:
            NstError: it can't be written, for instance because the disk is full.
        """
        with self._written():
            if isinstance(part, Frame):
                self._container.mux(self._stream.encode(self._frame(part)))
                self.frames += 1
                return
            self._container.mux(self._extra_packets(part))

    def copy(self, packet: AnyPacket) -> None:
        """Write a packet of the `copied` stream, at its new time.

        Raises:
            NstError: it can't be written, for instance because the disk is full.
        """
        packet.stream = self._stream
        with self._written():
            self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        """Finish the file and put it in its place.

        Raises:
            NstError: it can't be written, for instance because the disk is full.
        """
        try:
            with self._written():
                if not self._copies:
                    self._container.mux(self._stream.encode(None))
                for extra in self._extras.values():
                    if isinstance(extra, Transcoder):
                        self._container.mux(extra.flush())
                self._container.close()
        except BaseException as error:
            self.abandon(error)
            raise
        self._closing.close()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self.abandon(error)

    def abandon(self, error: BaseException) -> None:
        """Remove the unfinished file after `error`; keep a recoverable one that can be played."""
        if self._recoverable:
            with contextlib.suppress(Exception):  # the container may not be able to end the file
                self._container.close()
            with contextlib.suppress(Exception):
                VideoReader(self._beside).close()  # decodes a frame
                self._closing.close()
                self.recovered = True
        with contextlib.suppress(Exception):
            self._closing.__exit__(type(error), error, error.__traceback__)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            why = error.strerror or str(error)
            full = error.errno in _FULL
            advice = "free some space, or choose another file" if full else "choose another file"
            if isinstance(error, av.FFmpegError) and not full:
                advice += ", or another codec"
            raise NstError(f"cannot write {self.path}: {why}; {advice}") from error

    def _video_stream(self, config: EncodeConfig, rate: Fraction) -> VideoStream:
        """Add a stream with the first encoder that opens."""
        height, width = (side + side % 2 for side in self.size)
        codec = config.codec or encoders.default_codec(self._container)
        names = [codec]
        if codec in encoders.ENCODERS:
            names = [encoders.ENCODERS[codec][0]]
            if config.hardware:
                units = [f"{codec}_{unit}" for unit in encoders.HARDWARE]
                names = [name for name in units if name in av.codecs_available] + names
        for name in names:
            encoder = encoders.find_encoder(name)
            encoders.check_container(self._container, encoder, self.path.suffix)
            options = encoders.options_for(
                name, codec, config.crf, config.preset, joined=config.joined
            )
            if self._container.format.name in _COUNT_FRAMES:
                self._unit = 1 / rate
                if name in ("libx264", "libx265"):
                    options["bf"] = "0"
            elif encoder.canonical_name == "mpeg4" and self._time_base.denominator >= 1 << 16:
                self._unit = Fraction(1, 1000)
            if not encoders.opens(name, options, (height, width)):
                continue
            stream = self._container.add_stream(name, rate=rate, options=options)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = width, height
            stream.pix_fmt = encoders.pixel_format(encoder)
            stream.time_base = stream.codec_context.time_base = self._unit
            stream.codec_context.colorspace = self.colors.matrix
            stream.codec_context.color_range = self.colors.range
            stream.codec_context.color_primaries = self.colors.primaries
            stream.codec_context.color_trc = self.colors.transfer
            if config.hardware and codec in encoders.ENCODERS and name == names[-1]:
                self.notes.append(f"no hardware encodes {codec} here: {name} does")
            return stream
        raise UsageError(
            f"the encoder {names[-1]} takes no {width}×{height} frames with these options: "
            "check codec, crf and preset"
        )

    def _extra_stream(self, extra: Extra) -> Stream | Transcoder | None:
        """Return the stream or the transcoder for the packets of `extra`; None leaves them out."""
        what = "sound" if isinstance(extra, AudioStream) else "subtitles"
        context: Any = extra.codec_context
        if context is None:  # FFmpeg knows no decoder for it
            self.notes.append(f"{what} left out: of a kind that is not known")
            return None
        codec = av.codec.Codec(context.name, "r").canonical_name
        if encoders.fits(self._container, codec):
            stream = self._container.add_stream_from_template(extra)
            stream.metadata.update(extra.metadata)
            stream.disposition = extra.disposition
            return stream
        if isinstance(extra, AudioStream):
            other = self._container.default_audio_codec
            made = Transcoder.make(self._container, extra, other)
            if made is not None:
                self.notes.append(f"{what}: a {self.path.suffix} file takes no {codec}: {other}")
                return made
        self.notes.append(f"{what} left out: a {self.path.suffix} file takes no {codec}")
        return None

    def _extra_packets(self, packet: AnyPacket) -> list[AnyPacket]:
        target = self._extras.get(packet.stream)
        if target is None:
            return []
        if isinstance(target, Transcoder):
            return target.encode(packet)
        packet.stream = target
        return [packet]

    def _frame(self, frame: Frame) -> av.VideoFrame:
        image = frame.image
        height, width = self.size
        if height % 2 or width % 2:
            image = np.asarray(
                cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE),
                np.uint8,
            )
        rgb = av.VideoFrame.from_ndarray(image, "rgb24")
        yuv = rgb.reformat(
            format=self._stream.pix_fmt,
            dst_colorspace=self.colors.matrix,
            dst_color_range=self.colors.range,
            interpolation=Interpolation.FAST_BILINEAR,
            threads=1,
        )
        scale = self._time_base / self._unit
        self._last = max(self._last + 1, round(frame.pts * scale))
        yuv.pts, yuv.time_base = self._last, self._unit
        yuv.duration = round(frame.duration * scale)
        return yuv
