"""Small videos, synthesised."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from nst.io.images import Array

UNIT = Fraction(1, 1000)


def pictures(count: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> list[Array]:
    """Smooth colours that move, and a bright square whose place shows the frame's number."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(60, 190, 3)
    made = []
    for k in range(count):
        base = [a + 40 * np.sin(x / 9 + k / 5), b + 40 * np.cos(y / 7), c + 0 * x]
        image = np.stack(base, -1)
        image[4:12, 4 + 4 * (k % 12) : 12 + 4 * (k % 12)] = 235
        made.append(np.clip(image, 0, 255).astype(np.uint8))
    return made


def make_clip(
    path: Path,
    frames: Sequence[Array],
    times: Sequence[int] | None = None,
    *,
    sound: str = "",
    subtitles: bool = False,
    rotation: int = 0,
    chapters: bool = False,
    codec: str = "libx264",
    colors: tuple[int, int] | None = (5, 1),
    options: dict[str, str] | None = None,
    rate: bool = False,
    layout: str = "stereo",
    sound_frames: int = 0,
) -> Path:
    """Write frames, shown at `times` in milliseconds (25 a second else), with sound if asked for.

    Args:
        sound: name of its encoder: a tone of a second for each 25 frames.
        sound_frames: how many frames' time it lasts; 0 for as many as there are.
        colors: matrix and range of the YUV, said in the file; None for BT.601, and nothing said.
        rate: count times in frames, as some codecs want it.
    """
    times = times or [40 * k for k in range(len(frames))]
    height, width = frames[0].shape[:2]
    odd = height % 2 or width % 2
    with av.open(str(path), "w") as made:
        stream: Any = made.add_stream(codec, rate=25, options=_options(codec) | (options or {}))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        unit = Fraction(1, 25) if rate else UNIT
        stream.time_base = stream.codec_context.time_base = unit
        if rotation:
            stream.set_display_rotation(rotation)
        matrix, span = colors or (5, 1)
        if colors is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, span
        audio: Any = made.add_stream(sound, rate=48000, layout=layout) if sound else None
        text: Any = made.add_mux_stream("subrip") if subtitles else None
        made.metadata["title"] = "A clip"
        if chapters:
            made.set_chapters(
                [
                    {
                        "id": 1,
                        "start": 0,
                        "end": 400,
                        "time_base": UNIT,
                        "metadata": {"title": "One"},
                    },
                    {
                        "id": 2,
                        "start": 400,
                        "end": 900,
                        "time_base": UNIT,
                        "metadata": {"title": "Two"},
                    },
                ]
            )
        if text is not None:
            packet = av.Packet(b"Hello")
            packet.stream, packet.time_base = text, UNIT
            packet.pts = packet.dts = 100
            packet.duration = 300
            made.start_encoding()
            made.mux(packet)
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=span
            )
            frame.pts, frame.time_base = round(time * UNIT / unit), unit
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
        if audio is not None:
            _add_tone(made, audio, (sound_frames or len(frames)) * 1920, layout)
    return path


def _options(codec: str) -> dict[str, str]:
    return {"crf": "4", "g": "10"} if codec.startswith("lib") else {"g": "10"}


def _add_tone(made: Any, stream: Any, samples: int, layout: str) -> None:
    wave = (8000 * np.sin(np.arange(samples) / 20)).astype(np.int16)
    channels = av.AudioLayout(layout).nb_channels
    frame = av.AudioFrame.from_ndarray(np.repeat(wave, channels)[None], "s16", layout)
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    resampler = av.AudioResampler(stream.format, layout, 48000)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        made.mux(stream.encode(part))
    made.mux(stream.encode(None))


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """(seconds, content) of the packets of a kind of stream."""
    with av.open(str(path)) as video:
        streams = [s for s in video.streams if s.type == kind]
        return streams and [
            (round(float(p.pts * p.time_base), 4), bytes(p))
            for p in video.demux(*streams)
            if p.pts is not None
        ]


def decoded(path: Path) -> tuple[list[Array], list[float]]:
    """RGB frames, as FFmpeg sees them, and their times."""
    with av.open(str(path)) as video:
        frames = list(video.decode(video.streams.video[0]))
        images = [f.to_ndarray(format="rgb24") for f in frames]
        return images, [round(float(f.pts * f.time_base), 4) for f in frames]
