"""Colour encoding of video frames: the YUV matrix, the range, primaries and transfer."""

from __future__ import annotations

from dataclasses import dataclass

import av
from av.video.reformatter import ColorRange, Colorspace

_HD_HEIGHT = 720  # rows from which BT.709 is assumed where a file names no matrix
_UNSPECIFIED = 2  # primaries and transfer, in FFmpeg's numbers


@dataclass(frozen=True)
class Colors:
    """Encoding of RGB as YUV.

    Primaries and transfer, which say what the RGB stands for, are passed on unchanged, so that a
    player shows the repainted video in HDR if the source was HDR.

    Attributes:
        matrix: BT.601, BT.709, …, as FFmpeg's `AVColorSpace`.
        range: full or limited, as FFmpeg's `AVColorRange`.
        primaries: as FFmpeg's `AVColorPrimaries`.
        transfer: as FFmpeg's `AVColorTransferCharacteristic`.
    """

    matrix: int
    range: int
    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colors:
        """Return the colours of a frame; guess the matrix from its height where none is named."""
        matrix = frame.colorspace
        if matrix not in set(Colorspace):
            guess = Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601
            matrix = Colorspace.ITU601 if matrix == 6 else guess  # SMPTE 170M is BT.601
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        levels = ColorRange.JPEG if full else ColorRange.MPEG
        return cls(int(matrix), int(levels), int(frame.color_primaries), int(frame.color_trc))


BT709 = Colors(int(Colorspace.ITU709), int(ColorRange.MPEG))  # limited range
