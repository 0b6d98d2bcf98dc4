"""Frames as a video file: encoded, with the sound and subtitles of another beside them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from nst.config import check_number
from nst.errors import NstError, UsageError
from nst.infer.video.audio import Transcoder
from nst.infer.video.reader import AnyPacket, Colors, Extra, Frame
from nst.io.files import Closing, replacing

Codec = Literal["h264", "hevc", "av1", "vp9"]
# How each is encoded on a CPU, and its usual constant quality.
_ENCODERS: dict[str, tuple[str, int]] = {
    "h264": ("libx264", 20),
    "hevc": ("libx265", 23),
    "av1": ("libsvtav1", 30),
    "vp9": ("libvpx-vp9", 31),
}
# Encoders of graphics cards and processors, and the option for constant quality of each, if any.
_HARDWARE = {"nvenc": "cq", "qsv": "global_quality", "videotoolbox": "", "amf": "qp_i"}
# Painted frames are full of strokes, and the network needs the cores: `veryfast` is half as fast.
_SPEED = "superfast"
_FRAMES = {"avi", "asf"}  # containers that count frames, in the order of decoding
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


@dataclass(frozen=True)
class EncodeConfig:
    """How a video is encoded.

    Args:
        codec: `h264`, `hevc`, `av1`, `vp9`, or the name of an encoder of FFmpeg; None for what
            suits the file's suffix.
        crf: constant quality, lower is better and larger; None for the codec's usual one.
        preset: speed of the encoder, as it names them (`ultrafast` … `veryslow` for H.264).
        joined: the file is a part that will be joined with others.
        hardware: encode on the graphics card or the processor's media unit, if there is one.
    """

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    hardware: bool = False
    joined: bool = False

    def __post_init__(self) -> None:
        if self.crf is not None:
            check_number("crf", self.crf, most=63)
        if self.codec is not None and self.codec not in get_args(Codec):
            _encoder(self.codec)


class VideoWriter(Closing):
    """A video file that appears whole or not at all.

    Args:
        path: the suffix names the container.
        size: (height, width) of the frames; an odd side is enlarged by a row or column, repeated.
        time_base: unit of the frames' timestamps, in seconds.
        rate: frames per second, on average.
        pixel_aspect: width of a pixel over its height.
        colors: matrix and range of the YUV to write.
        extras: streams of sound and subtitles whose packets are to come. They are copied where the
            container takes them; sound that it doesn't is encoded anew, and the rest left out.
        metadata, chapters: of the file.
        copied: a stream of video whose packets are to come through `copy`, in place of frames.

    Attributes:
        notes: a line for each stream that could not be copied.
        encoder: name of the one at work.

    Raises:
        UsageError: the codec is unknown, or not for this container. NstError: the target can't be
        written.
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
    ) -> None:
        self.path, self.size, self.colors = Path(path), size, colors
        config = config or EncodeConfig()
        self.notes: list[str] = []
        self._closing = contextlib.ExitStack()
        beside = self._closing.enter_context(replacing(self.path))
        try:
            try:
                with self._written():
                    self._container = av.open(os.fspath(beside), "w", format=_format(self.path))
            except ValueError as error:
                raise UsageError(
                    f"{self.path} has no suffix that names a video format: use .mp4, .mkv, .mov "
                    "or .webm"
                ) from error
            self._closing.callback(self._container.close)
            self._time_base = self._unit = time_base
            if copied is None:
                self._stream = self._video(config, rate)
                self._stream.sample_aspect_ratio = pixel_aspect
            else:
                self._stream = self._container.add_stream_from_template(copied)
                self._stream.codec_context.framerate = rate  # the template has its unit's
            self.encoder = self._stream.codec_context.codec.name
            self._extras = {extra: self._extra(extra) for extra in extras}
            self._container.metadata.update(metadata or {})
            if chapters:
                self._container.set_chapters(list(chapters))
            with self._written():
                self._container.start_encoding()
        except BaseException as error:
            self._abandon(error)
            raise
        self.frames, self._last = 0, -(1 << 62)
        self._copies = copied is not None

    def write(self, part: Frame | AnyPacket) -> None:
        """A frame, or a packet of one of `extras`.

        Raises:
            NstError: it can't be written: the disk is full.
        """
        with self._written():
            if isinstance(part, Frame):
                self._container.mux(self._stream.encode(self._frame(part)))
                self.frames += 1
                return
            for packet in self._taken(part):
                self._container.mux(packet)

    def copy(self, packet: AnyPacket) -> None:
        """A packet of the `copied` stream, at its new time.

        Raises:
            NstError: it can't be written: the disk is full.
        """
        packet.stream = self._stream
        with self._written():
            self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        """Finish the file and put it in its place.

        Raises:
            NstError: it can't be written: the disk is full.
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
            self._abandon(error)
            raise
        self._closing.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """Remove what there is."""
        with contextlib.suppress(Exception):  # the container can't end what it could not write
            self._closing.__exit__(type(error), error, error.__traceback__)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            why = error.strerror or str(error)
            full = error.errno in _FULL
            mend = "free some space, or choose another file" if full else "choose another file"
            if isinstance(error, av.FFmpegError) and not full:
                mend += ", or another --codec"
            raise NstError(f"cannot write {self.path}: {why}; {mend}") from error

    def _video(self, config: EncodeConfig, rate: Fraction) -> VideoStream:
        """The stream of the first encoder that opens."""
        height, width = (side + side % 2 for side in self.size)
        codec = config.codec or _default_codec(self._container)
        names = [codec]
        if codec in _ENCODERS:
            names = [_ENCODERS[codec][0]]
            if config.hardware:
                units = [f"{codec}_{unit}" for unit in _HARDWARE]
                names = [name for name in units if name in av.codecs_available] + names
        for name in names:
            encoder = _encoder(name)
            _check_fits(self._container, encoder, self.path.suffix)
            options = _options(name, codec, config)
            if self._container.format.name in _FRAMES:
                self._unit = 1 / rate
                if name in ("libx264", "libx265"):
                    options["bf"] = "0"
            elif encoder.canonical_name == "mpeg4" and self._time_base.denominator >= 1 << 16:
                self._unit = Fraction(1, 1000)
            if not _opens(name, options, (height, width)):
                continue
            stream = self._container.add_stream(name, rate=rate, options=options)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = width, height
            stream.pix_fmt = _pixel_format(encoder)
            stream.time_base = stream.codec_context.time_base = self._unit
            stream.codec_context.colorspace = self.colors.matrix
            stream.codec_context.color_range = self.colors.range
            stream.codec_context.color_primaries = self.colors.primaries
            stream.codec_context.color_trc = self.colors.transfer
            if config.hardware and codec in _ENCODERS and name == names[-1]:
                self.notes.append(f"no hardware encodes {codec} here: {name} does")
            return stream
        raise UsageError(
            f"the encoder {names[-1]} takes no {width}×{height} frames with these options: "
            "check --codec, --crf and --preset"
        )

    def _extra(self, extra: Extra) -> Stream | Transcoder | None:
        """Where the packets of a stream go."""
        what = "sound" if isinstance(extra, AudioStream) else "subtitles"
        context: Any = extra.codec_context
        if context is None:  # FFmpeg knows no decoder for it
            self.notes.append(f"{what} left out: of a kind that is not known")
            return None
        codec = av.codec.Codec(context.name, "r").canonical_name
        if _fits(self._container, codec):
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

    def _taken(self, packet: AnyPacket) -> list[AnyPacket]:
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


def _encoder(name: str) -> av.codec.Codec:
    try:
        codec = av.codec.Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        known = ", ".join(get_args(Codec))
        raise UsageError(
            f"there is no encoder {name!r}: choose {known}, or the name of one of FFmpeg"
        ) from error
    if codec.type != "video":
        raise UsageError(f"{name} encodes {codec.type}, not video: choose another --codec")
    return codec


def _default_codec(container: av.container.OutputContainer) -> str:
    """What suits the container: H.264 where it can be, and else what FFmpeg takes for it."""
    for codec in ("h264", "vp9"):
        if _fits(container, codec):
            return codec
    return container.default_video_codec


def _fits(container: av.container.OutputContainer, codec: str) -> bool:
    """Whether a container takes a codec; FFmpeg keeps no list for transport streams."""
    if container.format.name == "mpegts":
        return codec in ("h264", "hevc", "mpeg2video", "aac", "mp3", "mp2", "ac3", "opus")
    return codec in container.supported_codecs


def check_fits(path: Path, codec: str) -> None:
    """Raise `UsageError` where a file of this suffix, .mkv or like its format, takes no `codec`."""
    suffix = path.suffix.lower()
    form = {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix.removeprefix("."))
    encoder = _encoder(_ENCODERS.get(codec, (codec, 0))[0])
    with av.open(io.BytesIO(), "w", format=form) as container:
        _check_fits(container, encoder, path.suffix)


def _check_fits(
    container: av.container.OutputContainer, encoder: av.codec.Codec, suffix: str
) -> None:
    if not _fits(container, encoder.canonical_name):
        raise UsageError(
            f"{encoder.name} does not go into a {suffix} file: choose another --codec or another "
            "suffix"
        )


def _options(name: str, codec: str, config: EncodeConfig) -> dict[str, str]:
    """The encoder's options; constant quality has another name in hardware."""
    options = {}
    unit = name.rpartition("_")[2]
    quality = config.crf
    if quality is None and codec in _ENCODERS:
        quality = _ENCODERS[codec][1]
    option = _HARDWARE.get(unit, "crf")
    if quality is not None and option:
        options[option] = str(quality)
    if name == "libvpx-vp9":
        options |= {"b": "0", "row-mt": "1", "deadline": "realtime", "cpu-used": "5"}
    if config.preset is not None:
        options["preset"] = config.preset
    elif name in ("libx264", "libx265"):
        options["preset"] = _SPEED
    if name == "libx264" and config.joined:
        options["x264-params"] = "stitchable=1"
    if name == "libx265":
        options["x265-params"] = "log-level=error"
    return options


def _opens(name: str, options: Mapping[str, str], size: tuple[int, int]) -> bool:
    """Whether an encoder works here; one for hardware that is not there doesn't."""
    try:
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, VideoCodecContext)
        context.height, context.width = size
        context.pix_fmt = _pixel_format(av.codec.Codec(name, "w"))
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = dict(options)
        context.open()
    except (av.FFmpegError, ValueError, OSError):
        return False
    return not context.options  # what is left in there the encoder did not know


def _pixel_format(codec: av.codec.Codec) -> str:
    """The one that plays everywhere, or the encoder's first."""
    names = [form.name for form in codec.video_formats or ()]
    return "yuv420p" if not names or "yuv420p" in names else names[0]


def _format(path: Path) -> str | None:
    """Where the suffix alone would not do: FFmpeg knows no .m4v to write but MP4."""
    return {".m4v": "mp4"}.get(path.suffix.lower())
