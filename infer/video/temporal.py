"""A model for the frames of a film, one after another: steadier than each by itself."""

from __future__ import annotations

import cv2
import numpy as np

from nst.config import KeepColor
from nst.infer.runtime.stylizer import FrameStatistics, Stylizer
from nst.io.images import Array

SMOOTHING = 0.1  # the newest frame's part in the statistics that are held
CUT = 24.0  # levels by which a thumbnail changes, on average, where another scene begins
THUMBNAIL = 32  # pixels a side
# Stabilising, at a quarter of the resolution: a change of up to STILL levels is noise, of MOVING
# levels motion; where nothing moves, the newest picture has a part of FRESH.
STILL, MOVING, FRESH = 3, 12, 0.2
# Where much of the frame changes the camera moves, and blending would smear: from the first share
# of the frame on the newest picture's part rises, at the second it is all.
PANNING = 0.05, 0.25
_FRESH = np.interp(np.arange(256), (STILL, MOVING), (255 * FRESH, 255)).round().astype(np.uint8)


class TemporalStylizer:
    """Repaints frames in their order.

    What a model takes from a frame as a whole is held steady: a running mean over the frames, which
    begins anew at a cut.

    Args:
        stylizer: the model; closed by whoever made it.
        stabilize: also blend each picture with the one before where the frame hardly changes.
    """

    def __init__(self, stylizer: Stylizer, *, stabilize: bool = False) -> None:
        self.stylizer, self.stabilize = stylizer, stabilize
        self.reset()

    @property
    def name(self) -> str:
        return self.stylizer.name

    @property
    def keep_color(self) -> KeepColor | None:
        return self.stylizer.keep_color

    def reset(self) -> None:
        """Forget the frames so far."""
        self._thumbnail: Array | None = None
        self._held: FrameStatistics | None = None
        self._frames = 0
        self._small: Array | None = None
        self._painted: Array | None = None
        self._strength = 1.0

    def __call__(self, image: Array, strength: float = 1.0) -> Array:
        """Repaint the next frame, uint8 [H, W, 3] RGB; see `Stylizer`."""
        small = _halved(_halved(image))
        thumbnail = cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        if self._thumbnail is None or cv2.absdiff(thumbnail, self._thumbnail).mean() > CUT:
            self.reset()
        self._thumbnail = np.asarray(thumbnail, np.uint8)
        stylized, statistics = self.stylizer.frame(image, strength, self._held)
        if statistics is not None:
            self._frames += 1
            share = max(SMOOTHING, 1 / self._frames)
            held = statistics if self._held is None else self._held
            self._held = held + np.float32(share) * (statistics - held)
        if self.stabilize:
            stylized = self._blended(small, stylized, strength)
        return stylized

    def _blended(self, small: Array, stylized: Array, strength: float) -> Array:
        before, painted = self._small, self._painted
        if (
            before is not None
            and painted is not None
            and painted.shape == stylized.shape
            and strength == self._strength
        ):
            change = cv2.cvtColor(cv2.absdiff(small, before), cv2.COLOR_RGB2GRAY)
            change = cv2.blur(change, (5, 5))
            moving = float((np.asarray(change) > STILL).mean())
            least = np.uint8(255 * np.interp(moving, PANNING, (FRESH, 1)))
            fresh = np.maximum(cv2.LUT(change, _FRESH), least)
            fresh = cv2.resize(fresh, stylized.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            share = cv2.merge([fresh] * 3)
            # In bytes: a picture that stands still stops a few levels from its goal, unseen.
            new = cv2.multiply(stylized, share, scale=1 / 255)
            old = cv2.multiply(painted, cv2.bitwise_not(share), scale=1 / 255)
            stylized = np.asarray(cv2.add(new, old), np.uint8)
        self._small, self._painted, self._strength = small, stylized, strength
        return stylized


def _halved(image: Array) -> Array:
    """At half the size; an odd row or column is left out."""
    height, width = (max(1, side // 2) for side in image.shape[:2])
    even = image[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
