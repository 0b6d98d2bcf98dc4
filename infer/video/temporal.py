"""Repaints consecutive frames of a video with less flicker than frame by frame."""

from __future__ import annotations

import cv2
import numpy as np

from nst.config import KeepColor
from nst.infer.runtime.stylizer import FrameStatistics, Stylizer
from nst.io.images import Array

SMOOTHING = 0.1  # weight of the newest frame in the running mean of the statistics
CUT = 24.0  # mean change of the thumbnail, in levels, above which a new scene begins
THUMBNAIL = 32  # pixels a side
# Stabilising works at a quarter of the resolution: a change of up to STILL levels is noise, of
# MOVING levels is motion. Where nothing moves, the newest frame gets the weight FRESH.
STILL, MOVING, FRESH = 3, 12, 0.2
# Where much of the frame changes, the camera moves and blending would smear. The least weight of
# the newest frame rises from FRESH to 1 between these two changed shares of the frame.
PANNING = 0.05, 0.25
_FRESH = np.interp(np.arange(256), (STILL, MOVING), (255 * FRESH, 255)).round().astype(np.uint8)


class TemporalStylizer:
    """Repaints frames in their order with steady statistics.

    The statistics that a model computes over a whole frame are replaced by their running mean over
    the frames, which begins again at a cut.

    Args:
        stylizer: the model; the caller closes it.
        stabilize: also blend each stylized frame with the one before where the frame hardly
            changes.
    """

    def __init__(self, stylizer: Stylizer, *, stabilize: bool = False) -> None:
        self.stylizer, self.stabilize = stylizer, stabilize
        self.reset()

    @property
    def name(self) -> str:
        """Name of the style."""
        return self.stylizer.name

    @property
    def keep_color(self) -> KeepColor | None:
        """The model's default method to keep a frame's colours."""
        return self.stylizer.keep_color

    def reset(self) -> None:
        """Forget the frames so far."""
        self._thumbnail: Array | None = None
        self._mean: FrameStatistics | None = None
        self._frames = 0
        self._small: Array | None = None
        self._stylized: Array | None = None
        self._strength = 1.0

    def __call__(self, image: Array, strength: float = 1.0) -> Array:
        """Repaint the next frame, HWC uint8 RGB; see `Stylizer`."""
        small = _halved(_halved(image))
        thumbnail = cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        if self._thumbnail is None or cv2.absdiff(thumbnail, self._thumbnail).mean() > CUT:
            self.reset()
        self._thumbnail = np.asarray(thumbnail, np.uint8)
        stylized, statistics = self.stylizer.frame(image, strength, self._mean)
        if statistics is not None:
            self._frames += 1
            weight = max(SMOOTHING, 1 / self._frames)
            mean = statistics if self._mean is None else self._mean
            self._mean = mean + np.float32(weight) * (statistics - mean)
        if self.stabilize:
            stylized = self._blended(small, stylized, strength)
        return stylized

    def _blended(self, small: Array, stylized: Array, strength: float) -> Array:
        """Blend a stylized frame with the one before where the frame (`small`) hardly changes."""
        before, previous = self._small, self._stylized
        if (
            before is not None
            and previous is not None
            and previous.shape == stylized.shape
            and strength == self._strength
        ):
            change = cv2.cvtColor(cv2.absdiff(small, before), cv2.COLOR_RGB2GRAY)
            change = cv2.blur(change, (5, 5))
            moving = float((np.asarray(change) > STILL).mean())
            least = np.uint8(255 * np.interp(moving, PANNING, (FRESH, 1)))
            fresh = np.maximum(cv2.LUT(change, _FRESH), least)
            fresh = cv2.resize(fresh, stylized.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            weight = cv2.merge([fresh] * 3)
            # In uint8, which is fast: a still image stops a few levels from its limit, unseen.
            new = cv2.multiply(stylized, weight, scale=1 / 255)
            old = cv2.multiply(previous, cv2.bitwise_not(weight), scale=1 / 255)
            stylized = np.asarray(cv2.add(new, old), np.uint8)
        self._small, self._stylized, self._strength = small, stylized, strength
        return stylized


def _halved(image: Array) -> Array:
    """Return the image at half the size; an odd last row or column is left out."""
    height, width = (max(1, side // 2) for side in image.shape[:2])
    even = image[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
