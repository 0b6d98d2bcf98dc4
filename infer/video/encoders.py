"""Video encoders of FFmpeg: their names, options, and the containers that take their codecs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av
from av.video.codeccontext import VideoCodecContext

from nst.errors import UsageError

Codec = Literal["h264", "hevc", "av1", "vp9"]
# The software encoder of each codec, and its usual constant quality (CRF).
ENCODERS: dict[str, tuple[str, int]] = {
    "h264": ("libx264", 20),
    "hevc": ("libx265", 23),
    "av1": ("libsvtav1", 30),
    "vp9": ("libvpx-vp9", 31),
}
# Hardware encoders, and the option of each for constant quality, if it has one.
HARDWARE = {"nvenc": "cq", "qsv": "global_quality", "videotoolbox": "", "amf": "qp_i"}
# Stylized frames are full of strokes, and the network needs the cores: `veryfast` is half as fast.
_PRESET = "superfast"


def find_encoder(name: str) -> av.codec.Codec:
    """Return the video encoder of this name.

    Raises:
        UsageError: there is none.
    """
    try:
        codec = av.codec.Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        known = ", ".join(get_args(Codec))
        raise UsageError(
            f"there is no encoder {name!r}: choose {known}, or the name of one of FFmpeg"
        ) from error
    if codec.type != "video":
        raise UsageError(f"{name} encodes {codec.type}, not video: choose another codec")
    return codec


def default_codec(container: av.container.OutputContainer) -> str:
    """Return H.264 or VP9 where the container takes it, and else FFmpeg's default for it."""
    fitting = (codec for codec in ("h264", "vp9") if fits(container, codec))
    return next(fitting, container.default_video_codec)


def fits(container: av.container.OutputContainer, codec: str) -> bool:
    """Return whether a container takes a codec; FFmpeg keeps no list for transport streams."""
    if container.format.name == "mpegts":
        return codec in ("h264", "hevc", "mpeg2video", "aac", "mp3", "mp2", "ac3", "opus")
    return codec in container.supported_codecs


def check_fits(path: Path, codec: str) -> None:
    """Raise `UsageError` if a file with this suffix (.mkv or a format's own) takes no `codec`."""
    suffix = path.suffix.lower()
    name = {".mkv": "matroska", ".m4v": "mp4"}.get(suffix, suffix.removeprefix("."))
    encoder = find_encoder(ENCODERS.get(codec, (codec, 0))[0])
    with av.open(io.BytesIO(), "w", format=name) as container:
        check_container(container, encoder, path.suffix)


def check_container(
    container: av.container.OutputContainer, encoder: av.codec.Codec, suffix: str
) -> None:
    """Raise `UsageError` if the container, of a file with this suffix, takes no such codec."""
    if not fits(container, encoder.canonical_name):
        raise UsageError(
            f"{encoder.name} does not go into a {suffix} file: choose another codec or another "
            "suffix"
        )


def options_for(
    name: str, codec: str, crf: int | None, preset: str | None, *, joined: bool
) -> dict[str, str]:
    """Return an encoder's options in its own terms; see `EncodeConfig` for the arguments."""
    options = {}
    if crf is None and codec in ENCODERS:
        crf = ENCODERS[codec][1]
    quality = HARDWARE.get(name.rpartition("_")[2], "crf")
    if crf is not None and quality:
        options[quality] = str(crf)
    if name == "libvpx-vp9":
        options |= {"b": "0", "row-mt": "1", "deadline": "realtime", "cpu-used": "5"}
    if preset is not None:
        options["preset"] = preset
    elif name in ("libx264", "libx265"):
        options["preset"] = _PRESET
    if name == "libx264" and joined:
        options["x264-params"] = "stitchable=1"
    if name == "libx265":
        options["x265-params"] = "log-level=error"
    return options


def opens(name: str, options: Mapping[str, str], size: tuple[int, int]) -> bool:
    """Return whether an encoder works here with these options for frames of (height, width).

    A hardware encoder does not work without its hardware.
    """
    try:
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, VideoCodecContext)
        context.height, context.width = size
        context.pix_fmt = pixel_format(av.codec.Codec(name, "w"))
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = dict(options)
        context.open()
    except (av.FFmpegError, ValueError, OSError):
        return False
    return not context.options  # the encoder leaves the options that it does not know


def pixel_format(codec: av.codec.Codec) -> str:
    """Return yuv420p, which every player shows, or the encoder's first format."""
    names = [form.name for form in codec.video_formats or ()]
    return "yuv420p" if not names or "yuv420p" in names else names[0]
